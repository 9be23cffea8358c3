"""What becomes of the dead: the log of dead letters, the job that fills it, and what is done to letters later."""
