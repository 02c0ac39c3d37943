-- Tokens are kept by their hashes; login is whose they are.

-- +goose Up
CREATE TABLE tokens (
    hash       TEXT   NOT NULL PRIMARY KEY,
    login      TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX tokens_login ON tokens (login);

-- +goose Down
DROP TABLE tokens;
