"""What finds secrets, personal data, code and files in what would leave this box."""
