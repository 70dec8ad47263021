package rules

import (
	"embed"
	"io/fs"
)

//go:embed *.yaml
var shipped embed.FS

// Shipped holds the rules that come with the gate. Operators' rules stand beside
// them, loaded from their own folder.
var Shipped fs.FS = shipped
