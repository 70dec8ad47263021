package policies

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// documentError is every fault of one file, in the order of its lines.
type documentError []documentFault

type documentFault struct {
	file         string
	line, column int
	message      string
}

func (e documentError) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = fmt.Sprintf("%s:%d:%d: %s", f.file, f.line, f.column, f.message)
	}
	return strings.Join(lines, "\n")
}

// document reads one YAML document strictly: unknown and repeated keys, aliases
// and values of the wrong kind are faults. Reading goes on after a fault, so that
// all of them are told.
type document struct {
	file   string
	faults documentError
}

const maxDocument = 256 << 10 // bytes

// readDocument hands the root of a document to read and returns its faults.
func readDocument(file string, data []byte, read func(*document, *yaml.Node)) error {
	d := &document{file: file}
	if len(data) > maxDocument {
		return documentError{{file, 1, 1, fmt.Sprintf("the file has %d bytes; at most %d", len(data), maxDocument)}}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root, more yaml.Node
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF):
		return documentError{{file, 1, 1, "the file is empty"}}
	case err != nil:
		return documentError{yamlFault(file, err)}
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		d.fault(&more, "the file has a second document; write one per file")
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		d.fault(&root, "the file has no content")
	} else {
		read(d, root.Content[0])
	}
	if len(d.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(d.faults, func(a, b documentFault) int {
		if a.line != b.line {
			return a.line - b.line
		}
		return a.column - b.column
	})
	return d.faults
}

// yamlFault takes the line out of an error of the parser.
func yamlFault(file string, err error) documentFault {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if number, after, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, message = n, after
			}
		}
	}
	return documentFault{file, line, 1, "not YAML: " + message}
}

func (d *document) fault(n *yaml.Node, format string, args ...any) {
	d.faults = append(d.faults, documentFault{d.file, max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
}

// mapping reads each key of n with its field. Keys in required must be there.
func (d *document) mapping(n *yaml.Node, what string, fields map[string]func(*yaml.Node), required ...string) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, "%s must be a mapping, not %s", what, kindName(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field, known := fields[key.Value]
		switch line, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode || !known:
			d.fault(key, "%s has no key %.64q; want one of %s", what, key.Value, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case twice:
			d.fault(key, "key %q was written in line %d already", key.Value, line)
		default:
			seen[key.Value] = key.Line
			field(value)
		}
	}
	for _, key := range required {
		if _, ok := seen[key]; !ok {
			d.fault(n, "%s needs the key %q", what, key)
		}
	}
}

// list reads each item of n; a single value is a list of one.
func (d *document) list(n *yaml.Node, what string, longest int, item func(*yaml.Node)) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.fault(n, "%s must not be an alias; write it out", what)
	case n.Kind != yaml.SequenceNode:
		item(n)
	case len(n.Content) > longest:
		d.fault(n, "%s has %d items; at most %d", what, len(n.Content), longest)
	default:
		for _, c := range n.Content {
			item(c)
		}
	}
}

// text reads a scalar as it is written, without its quotes.
func (d *document) text(n *yaml.Node, what string) string {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.fault(n, "%s must be a text, not %s", what, kindName(n))
	case n.Tag == "!!null" || n.Value == "":
		d.fault(n, "%s is empty", what)
	default:
		return n.Value
	}
	return ""
}

// word reads one of a closed set.
func (d *document) word(n *yaml.Node, what string, words ...string) string {
	w := d.text(n, what)
	if w != "" && !slices.Contains(words, w) {
		d.fault(n, "%s %.64q is none; want one of %s", what, w, strings.Join(words, ", "))
		return ""
	}
	return w
}

func (d *document) boolean(n *yaml.Node, what string) bool {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
		return n.Value == "true" || n.Value == "True" || n.Value == "TRUE"
	}
	d.fault(n, "%s must be true or false", what)
	return false
}

func (d *document) integer(n *yaml.Node, what string, least, most int) int {
	v := 0
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&v) != nil || v < least || v > most {
		d.fault(n, "%s must be a number from %d to %d", what, least, most)
		return least
	}
	return v
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return "a single value"
}
