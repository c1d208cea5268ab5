"""All that is compiled and runs without the GIL. It knows nothing of the rest of the package."""
