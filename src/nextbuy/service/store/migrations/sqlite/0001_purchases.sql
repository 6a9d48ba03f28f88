-- Purchases in the order of the store, and the submission that brought each.
CREATE TABLE submissions (
    first_sequence INTEGER PRIMARY KEY,
    count INTEGER NOT NULL CHECK (count > 0),
    key TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL
) STRICT;

CREATE TABLE purchases (
    sequence INTEGER PRIMARY KEY,
    received INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    platform TEXT,
    category TEXT,
    price REAL,
    quantity REAL,
    basket_id TEXT
) STRICT;

CREATE INDEX purchases_of_user ON purchases (user_id);

-- SHA-256 of user ids; the ids themselves are gone.
CREATE TABLE forgotten (digest BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;

CREATE TABLE served (
    id INTEGER PRIMARY KEY,
    served INTEGER NOT NULL,
    version TEXT NOT NULL,
    user_id TEXT NOT NULL,
    items TEXT NOT NULL,
    probabilities TEXT NOT NULL,
    after_sequence INTEGER NOT NULL
) STRICT;

CREATE INDEX served_in_order ON served (served);
CREATE INDEX served_to_user ON served (user_id);

-- Written to learn whether writes work.
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL) STRICT;
INSERT INTO probe (id, number) VALUES (1, 0);
