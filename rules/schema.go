package rules

import (
	"encoding/json"
	"maps"

	"go.yaml.in/yaml/v3"
)

// shape is a JSON Schema under construction.
type shape map[string]any

// Schema is the JSON Schema (draft 2020-12) of rule files, for editors. It is what
// the reader says of itself: the reader is run with every key present, and notes what
// it would accept instead of reading. It sees neither conditions nor bounds that
// depend on two values; [Load] does.
func Schema() ([]byte, error) {
	r := &draft{document: &document{shape: shape{}}}
	r.read(&yaml.Node{})
	r.shape["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	r.shape["title"] = "A rule of Kidoban"
	return json.MarshalIndent(r.shape, "", "  ")
}

// described notes what would be read. It reports false while a file is read.
func (d *document) described(is shape) bool {
	if d.shape == nil {
		return false
	}
	maps.Copy(d.shape, is)
	return true
}

// inner is the shape that read notes of n.
func (d *document) inner(n *yaml.Node, read func(*yaml.Node)) shape {
	outer := d.shape
	d.shape = shape{}
	read(n)
	described := d.shape
	d.shape = outer
	return described
}

func (d *document) describeMapping(n *yaml.Node, fields []field) {
	properties, required := shape{}, []string{}
	for _, f := range fields {
		properties[f.name] = d.inner(n, f.read)
		if f.required {
			required = append(required, f.name)
		}
	}
	d.described(shape{"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

func (d *document) describeList(n *yaml.Node, limit int, read func(*yaml.Node)) {
	d.described(shape{"type": "array", "minItems": 1, "maxItems": limit, "items": d.inner(n, read)})
}

// describeOne notes that of keys exactly one is wanted.
func (d *document) describeOne(keys ...string) {
	if d.shape == nil {
		return
	}
	var one []shape
	for _, key := range keys {
		one = append(one, shape{"required": []string{key}})
	}
	d.described(shape{"oneOf": one})
}
