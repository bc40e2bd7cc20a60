-- Prompts that an operator wants kept warm on the backends: what many requests begin with.
CREATE TABLE warm (
    name          TEXT    PRIMARY KEY,
    model         TEXT    NOT NULL,
    system        TEXT,
    prompt        TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL -- milliseconds since 1970-01-01T00:00:00Z
) STRICT;
