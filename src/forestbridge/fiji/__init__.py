"""forestbridge in Fiji and ImageJ: commands, the warm worker that they call, and images to and from a running Fiji."""
