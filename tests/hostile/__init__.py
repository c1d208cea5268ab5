"""Files made to do harm, by format: name -> (content, what the refusal must say)."""
