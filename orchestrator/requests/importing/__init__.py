"""What formats of requests share: how a file begins, reading it record by record, columns, texts as tokens.

beginning   what stands at the head of a file, by which formats know theirs
reading     what is asked of a reader: how many requests, what becomes of malformed records, how texts count
rows        the requests that were read, as columns
columns     CSV files, a block of lines at once
lines       JSON Lines, a record a line        elements   a list of records in one JSON text of any length
record      one JSON object, field by field    document   one JSON text, read whole
texts       how many tokens a text has         chat       the texts of a chat or completion request
"""
