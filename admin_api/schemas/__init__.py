"""What the API takes and answers, field by field; each file is one noun."""
