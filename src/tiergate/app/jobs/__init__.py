"""`tiergate batch`: files of questions turned into jobs, and their answers into files."""
