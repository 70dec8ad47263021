package rules

import (
	"embed"
	"io/fs"
)

//go:embed *.yaml lists/*
var shipped embed.FS

// Shipped holds the rules that come with the gate, and their lists. Operators' rules stand beside
// them, loaded from their own folder.
var Shipped fs.FS = shipped
