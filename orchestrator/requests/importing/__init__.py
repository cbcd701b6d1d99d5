"""What formats of requests share. Readers of a kind of file:

    columns     CSV, a block of lines at once     cells     what a column of it may hold
    lines       JSON Lines, a record a line       elements  a list of records in one JSON text of any length
    document    one JSON text, read whole

and what they are made of:

    beginning   the head of a file, by which formats know theirs
    reading     what is asked: how many requests, what becomes of malformed records, how texts count
    record      one JSON object, field by field   rows      the requests that were read, as columns
    texts       how many tokens a text has        chat      the texts of a chat or completion request
"""
