-- Slices are drawn by ceiling and window, and known by the machine's boot: while it runs on, nothing that was written is
-- lost. Nothing was written here yet.
DROP TABLE slice;

-- How far an owner may let the spending of a ceiling go. This much is on the disk whatever becomes of the machine; what
-- of it no record tells after a loss of power counts as spent.
CREATE TABLE slice (
    owner_epoch  INTEGER NOT NULL,
    ceiling      TEXT    NOT NULL,
    start_ns     INTEGER NOT NULL,              -- of the ceiling's window,
    end_ns       INTEGER,                       -- the end not included; NULL: for ever
    amount_nanos INTEGER NOT NULL CHECK (amount_nanos >= 0),     -- spent and held in the window together, at most
    boot         TEXT    NOT NULL,
    state        TEXT    NOT NULL DEFAULT 'drawn'
                 CHECK (state = 'drawn' OR state = 'returned' OR state = 'lapsed'),
    lapsed_nanos INTEGER NOT NULL DEFAULT 0 CHECK (lapsed_nanos >= 0),
    drawn_ns     INTEGER NOT NULL,
    PRIMARY KEY (ceiling, start_ns, owner_epoch)
) STRICT, WITHOUT ROWID;
