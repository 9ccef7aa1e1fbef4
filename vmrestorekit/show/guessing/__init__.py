"""`Guess` and `GuessForm`: questions whose answers come after the guess."""
