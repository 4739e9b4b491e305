"""What tests of several files share; `pythonpath` in pyproject.toml makes it importable."""
