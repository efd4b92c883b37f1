"""What of a request may leave this box, in which form, and the record of what left. The theory: docs/cloud.md."""
