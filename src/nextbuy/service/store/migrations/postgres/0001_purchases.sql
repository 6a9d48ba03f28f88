-- Purchases in the order of the store, and the submission that brought each.
CREATE TABLE submissions (
    first_sequence bigint PRIMARY KEY,
    count bigint NOT NULL CHECK (count > 0),
    key text COLLATE "C" NOT NULL UNIQUE,
    digest bytea NOT NULL
);

CREATE TABLE purchases (
    sequence bigint PRIMARY KEY,
    received bigint NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    item_id text NOT NULL,
    "timestamp" bigint NOT NULL,
    platform text,
    category text,
    price double precision,
    quantity double precision,
    basket_id text
);

CREATE INDEX purchases_of_user ON purchases (user_id, sequence);

-- SHA-256 of user ids; the ids themselves are gone.
CREATE TABLE forgotten (digest bytea PRIMARY KEY);

CREATE TABLE served (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    served bigint NOT NULL,
    version text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    items text NOT NULL,
    probabilities text NOT NULL,
    after_sequence bigint NOT NULL
);

CREATE INDEX served_in_order ON served (served, id);
CREATE INDEX served_to_user ON served (user_id);

-- Written to learn whether writes work.
CREATE TABLE probe (id integer PRIMARY KEY CHECK (id = 1), number bigint NOT NULL);
INSERT INTO probe (id, number) VALUES (1, 0);
