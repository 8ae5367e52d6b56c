"""What the command line calls itself."""


def test_usage_can_be_copied_as_it_stands(sidecar):
    """Nothing named `sidecar` is installed: a reader who copied `sidecar token create` was told so by the shell."""
    assert sidecar.cli("token", "create", "--help").stdout.startswith("Usage: python -m sidecar token create ")
