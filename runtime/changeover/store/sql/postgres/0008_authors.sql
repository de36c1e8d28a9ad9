-- Who made a version: the watcher, the server, the library, or whom a client said it was. NULL: before this was kept.
ALTER TABLE versions ADD COLUMN author word;
