-- catalogue has one row: its version is higher after each change to any channel.
-- disabled_at is in milliseconds, kicked the version of the catalogue at which the
-- publisher was kicked; NULL: neither. made_once holds the channels that are made
-- once and never again, whatever became of them.

-- +goose Up
ALTER TABLE channels ADD COLUMN disabled_at BIGINT;
ALTER TABLE channels ADD COLUMN kicked BIGINT;
CREATE TABLE catalogue (version BIGINT NOT NULL);
INSERT INTO catalogue (version) VALUES (1);
CREATE TABLE made_once (name TEXT NOT NULL PRIMARY KEY);

-- +goose Down
DROP TABLE made_once;
DROP TABLE catalogue;
ALTER TABLE channels DROP COLUMN kicked;
ALTER TABLE channels DROP COLUMN disabled_at;
