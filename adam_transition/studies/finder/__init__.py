"""The finder of β2 against full training: data, claims, figures."""
