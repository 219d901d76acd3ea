"""Settings of all tests."""

from hypothesis import settings

# a first example may wait for a compilation, and machines may be busy: nothing here is timed
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
