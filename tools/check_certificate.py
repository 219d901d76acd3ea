"""Proves a certificate of adam_transition again, with python-flint and nothing of the package.

docs/mathematics/certificates.md derives the bounds for D. Exit status 1 if anything is not proved.
"""

import json
import sys
from functools import cache
from itertools import pairwise, product
from math import ceil, comb, prod

from flint import arb, arb_mat, ctx, fmpq


def need(condition, what):
    if not condition:
        sys.exit(f"refused: {what}")


def prove(ball, sign, where):
    need(ball > 0 if sign in "+i" else ball < 0, f"{where} is not {sign}: {ball}")


def averages(row, centre, radius):
    """sum_j beta^j row[i-j]/(1 + .. + beta^(n-1)): at the centre, over the ball, its slope."""
    n, found = len(row), []
    back = arb_mat([[row[i - j] for i in range(n)] for j in range(n)])
    for beta in (arb(centre), arb(centre, radius)):
        power = [beta**j for j in range(n)]
        slope = [j * beta ** (j - 1) if j else arb(0) for j in range(n)]
        found.append(arb_mat([power]) * back / sum(power))
    return *found, (arb_mat([slope]) * back - found[-1] * sum(slope)) / sum(power)


def on_box(m, v, r1, r2):
    """D over a box, by D - D(centre) = D_1(., centre2) (x - c1) + D_2(x, .) (y - c2), and D_2."""
    root = arb_mat([[x.rsqrt()] for x in v[0].entries()])
    pairs = zip(v[1].entries(), v[2].entries())
    slope = m[1] * arb_mat([[-d * x.rsqrt() / (2 * x)] for x, d in pairs])
    spread = (m[2] * root)[0, 0] * arb(0, r1) + slope[0, 0] * arb(0, r2)
    return -((m[0] * root)[0, 0] + spread), -slope[0, 0]


def check_area(slopes, area):
    m = cache(lambda centre, radius: averages(slopes, centre, radius))
    v = cache(lambda centre, radius: averages([g * g for g in slopes], centre, radius))
    found, waiting = {"+": fmpq(0), "-": fmpq(0), "?": fmpq(0)}, [[fmpq(1, 2)] * 3]
    for node in area["tree"]:
        need(waiting and node in tuple("+-?s"), "the tree is damaged")
        x, y, r = waiting.pop()
        if node == "s":
            waiting += [(x + i * r / 2, y + j * r / 2, r / 2) for i in (1, -1) for j in (1, -1)]
            continue
        found[node] += 4 * r * r
        if node != "?":
            prove(on_box(m(x, r), v(y, r), r, r)[0], node, f"D at ({x}, {y}) +- {r}")
    need(not waiting, "the tree ends too early")
    need(all(fmpq(area["areas"][k]) == x for k, x in found.items()), "the areas differ")
    return found


def at_point(slopes, beta1, beta2, sampling):
    """D: in closed form, or pi^(-1/2) times the integral of exp(u/2) E m exp(-v exp(u)) over u."""
    if sampling == "cyclic":
        v = averages([g * g for g in slopes], beta2, 0)
        return on_box(averages(slopes, beta1, 0), v, 0, 0)[0]
    need(all(slopes) and 0 < beta2 < 1 and 0 <= beta1 < 1, f"no {sampling} with such numbers")
    n, q, least = len(slopes), 1 - beta2, min(map(abs, slopes))
    g = sorted({x / least for x in slopes})
    k = tuple(sum(x / least == y for x in slopes) for y in g)
    mean, big = sum(slopes) / n / least, max(map(abs, g))
    if sampling == "with_replacement":
        weight, e_m = {k: fmpq(n)}, {k: mean}
        feeds = {k: [(r, k, fmpq(count, n)) for r, count in enumerate(k)]}
    else:  # a state counts the draws of each value in the epoch; no draws are the same as all
        need(sampling == "random_shuffling", f"sampling = {sampling}")
        weight, e_m, feeds = {}, {}, {}
        for s in list(product(*(range(count + 1) for count in k)))[1:]:
            t, drawn = sum(s), sum(a * b for a, b in zip(s, g)) / sum(s)
            weight[s] = fmpq(prod(map(comb, k, s)), comb(n, t))
            e_m[s] = drawn + beta1**t * (mean - drawn)
            taken = [(r, (*s[:r], c - 1, *s[r + 1 :]), k[r] - c + 1) for r, c in enumerate(s) if c]
            feeds[s] = [(r, x if t > 1 else k, fmpq(left, n - t + 1)) for r, x, left in taken]
    lanes = ceil(float(-arb(beta2).log()) / 0.15)
    h, total, feeds = -arb(beta2).log() / lanes, 0, list(feeds.items())
    for lane in range(lanes):
        s = (lane * h - 100).exp()
        f = {x: w * (1 - s * big**2 * arb(0.5, 0.5)) for x, w in weight.items()}
        e = {x: w * (e_m[x] + arb(0, 1) * s * big**3) for x, w in weight.items()}
        while s < 70:
            total += s.sqrt() * sum(e.values())
            s /= beta2
            lost = [(-q * s * x * x).exp() for x in g]
            new, old = [(1 - beta1) * x * y for x, y in zip(g, lost)], [beta1 * x for x in lost]
            e = {x: sum(p * (new[r] * f[y] + old[r] * e[y]) for r, y, p in t) for x, t in feeds}
            f = {x: sum(p * lost[r] * f[y] for r, y, p in t) for x, t in feeds}
    strip, root_pi = arb(fmpq(5, 4)), arb.pi().sqrt()
    tails = h * arb(-50).exp() / (1 - (-h / 2).exp()) + arb(69).sqrt() * arb(-69).exp() * (h + 1)
    spacing = 2 * root_pi / strip.cos().sqrt() / ((2 * arb.pi() * strip / h).exp() - 1)
    return (-h * total + arb(0, 1) * n * big * (tails + spacing)) / root_pi


def check_cover(slopes, beta1, cover):
    """The proved signs over [0, 1]: between two of them D only rises, or only falls."""
    m, waiting, leaves = averages(slopes, beta1, 0), [(fmpq(1, 2), fmpq(1, 2))], ""
    for node in cover:
        need(waiting and node in tuple("+-ids"), "the cover is damaged")
        x, r = waiting.pop()
        if node == "s":
            waiting += [(x + r / 2, r / 2), (x - r / 2, r / 2)]
            continue
        ball = on_box(m, averages([g * g for g in slopes], x, r), 0, r)[node in "id"]
        prove(ball, node, f"beta1 = {beta1}, beta2 = {x} +- {r}")
        leaves += node if node != leaves[-1:] else ""
    need(not waiting and leaves[0] in "+-" and leaves[-1] in "+-", "the cover has gaps")
    need("id" not in leaves and "di" not in leaves, "the cover has a turn without a sign")
    return leaves.replace("i", "").replace("d", "")


def check_edges(slopes, one):
    beta1, starts, order = fmpq(one["beta1"]), not one["starts_away"], one["sampling"]
    need(0 <= beta1 < 1 and one["starts_away"] in (True, False), f"beta1 = {beta1}")
    ends = [fmpq(text) for pair in one["intervals"] for text in pair]
    need(all(x < y for x, y in pairwise([*ends, fmpq(1)])), "intervals out of order")
    signs = [(x, "+-"[((i + 1) // 2 + starts) % 2]) for i, x in enumerate(ends)]
    for text, sign in one["points"]:
        below = sum(x <= fmpq(text) for x in ends)
        need(below % 2 == 0 and sign == "+-"[(below // 2 + starts) % 2], f"a change near {text}")
        signs.append((fmpq(text), sign))
    need(all(0 <= x < 1 for x, _ in signs) and (signs or order == "cyclic"), "no beta2 in [0, 1)")
    for x, sign in signs:
        prove(at_point(slopes, beta1, x, order), sign, f"D({beta1}, {x})")
    if order == "cyclic":
        proved = check_cover(slopes, beta1, one["cover"])
        need("+-"[starts] == proved[0], "another first sign")
        need(sum(a != b for a, b in pairwise(proved)) == len(ends) // 2, "other sign changes")
    return [y - x for x, y in zip(ends[::2], ends[1::2])]


if __name__ == "__main__":
    ctx.prec = 128
    with open(sys.argv[1]) as file:
        content = json.load(file)
    slopes = [fmpq(text) for text in content["slopes"]]
    need(content["format"] == "adam_transition certificate 1" and sum(slopes) > 0, "format, slopes")
    area, rows = check_area(slopes, content["area"]), content["edges"]
    need(len({(x["sampling"], fmpq(x["beta1"])) for x in rows}) == len(rows), "an entry twice")
    width = [width for one in rows for width in check_edges(slopes, one)]
    print(f"proved in cyclic order: D > 0 on {area['+']} and D < 0 on {area['-']} of [0, 1)^2")
    print(f"proved: {len(width)} sign changes, in intervals at most {max(width, default=0)} wide")
