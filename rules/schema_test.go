package rules_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/kidoban/kidoban/rules"
)

// asJSON is a YAML document as JSON Schema sees it: dates are text.
func asJSON(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return asJSON(n.Content[0])
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = asJSON(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, e := range n.Content {
			list = append(list, asJSON(e))
		}
		return list
	}
	switch n.Tag {
	case "!!int", "!!float":
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return f
		}
	case "!!bool":
		return n.Value == "true"
	case "!!null":
		return nil
	}
	return n.Value
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	b, err := rules.Schema()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/schema.json", string(b)+"\n")
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("rule.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("rule.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The schema accepts what loads, and refuses what needs no reading of conditions to
// be seen.
func TestSchema(t *testing.T) {
	s := schema(t)
	validate := func(content []byte) error {
		var n yaml.Node
		if err := yaml.Unmarshal(content, &n); err != nil {
			return err
		}
		if n.Kind == 0 {
			return s.Validate(nil)
		}
		return s.Validate(asJSON(&n))
	}
	shipped, err := fs.Glob(rules.Shipped, "*.yaml")
	if err != nil || len(shipped) == 0 {
		t.Fatal(shipped, err)
	}
	for _, name := range shipped {
		b, err := fs.ReadFile(rules.Shipped, name)
		if err == nil {
			err = validate(b)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := validate([]byte(good(t))); err != nil {
		t.Errorf("good.yaml: %v", err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	if err := validate([]byte(example)); err != nil {
		t.Errorf("the example of README.md: %v", err)
	}
	// What only Load sees: conditions, tests, lists, places, and bounds of values.
	beyond := []string{"alias", "answer-for-stage", "condition-", "constant-", "counter-", "division", "duplicate-", "else-", "except-condition", "except-list", "list-", "no-hit-test", "no-miss-test",
		"not-yaml", "test-address", "test-fails", "test-other-action", "test-zone", "text-", "two-documents", "where-", "window-too", "window-range", "canary-share", "budget-share", "notify-often", "network-", "count-and-distinct", "title-"}
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	seen := 0
	for _, path := range files {
		name := filepath.Base(path)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(beyond, func(b string) bool { return strings.HasPrefix(name, b) }) {
			continue
		}
		seen++
		if validate(content) == nil {
			t.Errorf("%s: the schema accepts it", name)
		}
	}
	if seen < 20 {
		t.Errorf("the schema sees faults in %d files, want 20 or more", seen)
	}
}
