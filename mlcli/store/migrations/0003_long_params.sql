-- Long params (a JSON configuration) have an index of their own without the value, as long tags have: in PostgreSQL an
-- entry of an index has at most 2,700 bytes.
DROP INDEX params_value;
CREATE INDEX params_value ON params (key, value, run) WHERE length(value) <= 200;
CREATE INDEX params_long ON params (key, run) WHERE length(value) > 200;
