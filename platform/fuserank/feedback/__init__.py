"""What users did with the answers: history and joins."""
