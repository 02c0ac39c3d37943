-- Times are milliseconds since 1970 in UTC: both dialects hold a BIGINT alike.

-- +goose Up
CREATE TABLE channels (
    name         TEXT   NOT NULL PRIMARY KEY,
    key_hash     TEXT   NOT NULL UNIQUE,
    created_at   BIGINT NOT NULL,
    key_reset_at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE channels;
