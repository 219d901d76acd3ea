"""The authors' map of training loss on MNIST, beside networks of ours."""
