-- What each key, each tenant and all together used in the current day and month. One row each, replaced as it grows.
CREATE TABLE budgets (
    scope        TEXT    NOT NULL CHECK (scope IN ('key', 'tenant', 'global')),
    name         TEXT    NOT NULL, -- public id of the key, name of the tenant, or 'all'
    day          INTEGER NOT NULL, -- days since 1970-01-01 (UTC)
    day_tokens   INTEGER NOT NULL,
    month        INTEGER NOT NULL, -- year * 12 + month - 1 (UTC)
    month_tokens INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;
