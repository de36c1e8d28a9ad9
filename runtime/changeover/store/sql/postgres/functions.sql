-- What jobs use of SQLite's own functions, under the same names, and two that SQLite is taught by Python.
-- Made anew at each start, before the numbered scripts. Objects here depend on nothing of ours.

-- Days since noon of 24 November 4714 BC; of 'now', the only time asked for, by the clock and not that of the transaction.
CREATE OR REPLACE FUNCTION julianday(moment text) RETURNS double precision LANGUAGE plpgsql VOLATILE STRICT AS $$
BEGIN
    IF moment <> 'now' THEN
        RAISE EXCEPTION 'julianday knows now alone, not %', moment;
    END IF;
    RETURN extract(epoch FROM clock_timestamp())::double precision / 86400.0 + 2440587.5;
END $$;

-- JSON may hold the character NUL as \u0000, which jsonb cannot: a character that is none stands for it meanwhile.
CREATE OR REPLACE FUNCTION jsonb_of(document text) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN strpos(document, '\u0000') = 0 THEN document
                ELSE regexp_replace(document, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\uFDD0', 'g') END::jsonb
$$;

CREATE OR REPLACE FUNCTION text_of(document jsonb) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT replace(document::text, U&'\FDD0', '\u0000')
$$;

-- The elements of a list or an object: text as it is, anything else as JSON. Cast what shall be a number.
CREATE OR REPLACE FUNCTION json_each(document text) RETURNS TABLE (key text, value text) LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    parsed jsonb := jsonb_of(document);
BEGIN
    IF jsonb_typeof(parsed) = 'array' THEN
        RETURN QUERY SELECT (place - 1)::text, element
                       FROM jsonb_array_elements_text(parsed) WITH ORDINALITY AS elements (element, place);
    ELSE
        RETURN QUERY SELECT entry.key, entry.value FROM jsonb_each_text(parsed) AS entry;
    END IF;
END $$;

-- The value at a path such as $.a.b: text as it is, anything else as JSON.
CREATE OR REPLACE FUNCTION json_extract(document text, place text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT jsonb_path_query_first(jsonb_of(document), place::jsonpath) #>> '{}'
$$;

-- RFC 7386.
CREATE OR REPLACE FUNCTION jsonb_merged(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    merged jsonb := target;
    entry record;
BEGIN
    IF jsonb_typeof(patch) <> 'object' THEN
        RETURN patch;
    END IF;
    IF merged IS NULL OR jsonb_typeof(merged) <> 'object' THEN
        merged := '{}';
    END IF;
    FOR entry IN SELECT * FROM jsonb_each(patch) LOOP
        IF jsonb_typeof(entry.value) = 'null' THEN
            merged := merged - entry.key;
        ELSIF jsonb_typeof(entry.value) = 'object' THEN
            merged := merged || jsonb_build_object(entry.key, jsonb_merged(merged -> entry.key, entry.value));
        ELSE
            merged := merged || jsonb_build_object(entry.key, entry.value);
        END IF;
    END LOOP;
    RETURN merged;
END $$;

CREATE OR REPLACE FUNCTION json_patch(target text, patch text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF patch = '{}' THEN
        RETURN target;
    END IF;
    RETURN text_of(jsonb_merged(jsonb_of(target), jsonb_of(patch)));
END $$;

-- Whether a document holds another one; NULL where one of them is none that jsonb can read.
CREATE OR REPLACE FUNCTION json_contains(have text, want text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN jsonb_of(have) @> jsonb_of(want);
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;

-- What clients search threads by: the graph of a thread is in its metadata, also if it was run by name from Python.
CREATE OR REPLACE FUNCTION thread_metadata(metadata text, graph text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN graph IS NULL OR jsonb_of(metadata) ? 'graph_id' THEN metadata
                ELSE text_of(jsonb_of(metadata) || jsonb_build_object('graph_id', graph)) END
$$;

CREATE OR REPLACE FUNCTION folded(word text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT lower(word COLLATE "default") COLLATE "C"
$$;

CREATE OR REPLACE FUNCTION instr(word text, part text) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT strpos(word, part)::bigint
$$;

-- SQLite's max of two values, beside the aggregate of that name.
CREATE OR REPLACE FUNCTION max(double precision, double precision) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT greatest($1, $2)
$$;
