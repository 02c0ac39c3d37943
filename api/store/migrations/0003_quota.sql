-- quota is in bytes; NULL stands for what transcode is configured with, -1 for none.

-- +goose Up
ALTER TABLE channels ADD COLUMN quota BIGINT;

-- +goose Down
ALTER TABLE channels DROP COLUMN quota;
