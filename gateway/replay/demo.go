package replay

import (
	"bytes"
	_ "embed"
	"io"
)

//go:embed demo.jsonl
var demo []byte

// Demo is a recorded attack to try rules on, as JSON Lines: a list of stolen pairs from
// one address, 700 attempts in half an hour, beside an office on Monday morning. Nobody
// stopped it. The events tell since when accounts are known.
func Demo() io.Reader { return bytes.NewReader(demo) }
