"""What deploy/dev is made of: servers private to the checkout, the test run, the demo. Standard library only, but for pymongo."""
