"""Each way in which a log arrives, brought to one form: a raw table with places."""
