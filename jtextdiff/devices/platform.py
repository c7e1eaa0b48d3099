"""Check that jax finds the devices named by JAX_PLATFORMS."""

import jax

from jtextdiff.cli.errors import UserError


def check_platform() -> None:
    """Raises UserError if the environment names a platform, such as cuda, that jax cannot use here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # jax asserts that a device was found
        platforms = jax.config.values["jax_platforms"]
        if not platforms:
            raise
        reason = f" ({' '.join(str(error).split())[:200]})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS={platforms}: jax finds no such device here{reason}. Unset JAX_PLATFORMS to use what there "
            "is, or install jax's plugin for the device: pip install -e '.[cuda]' or '.[tpu]'."
        ) from None
