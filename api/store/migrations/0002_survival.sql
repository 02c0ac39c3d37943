-- grace is in milliseconds; NULL stands for what ingest is configured with.

-- +goose Up
ALTER TABLE channels ADD COLUMN grace BIGINT;
ALTER TABLE channels ADD COLUMN redundancy BIGINT;

-- +goose Down
ALTER TABLE channels DROP COLUMN grace;
ALTER TABLE channels DROP COLUMN redundancy;
