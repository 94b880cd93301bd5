"""What all tests share: how hypothesis searches."""

import os

from hypothesis import settings

# A slow machine is no failure, so there is no deadline. In CI every run tries the same examples; elsewhere
# each run tries others, and prints what is needed to repeat a failure.
settings.register_profile("search", deadline=None, max_examples=60, print_blob=True)
settings.register_profile("ci", settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "search")
