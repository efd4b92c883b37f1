"""What the box is made of: which devices there are, what each is doing, and how they are joined."""
