"""What a person reads: facts about a program, tables, error panels."""
