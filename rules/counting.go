package rules

import (
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"go.yaml.in/yaml/v3"
)

// Counter says what a rule counts. Equal counters of different rules are kept once.
// At most one of Distinct, Sum, Ratio and Change is set; with none of them events are
// counted.
type Counter struct {
	Distinct string        `json:"distinct,omitempty"` // the field whose different values are counted
	Sum      string        `json:"sum,omitempty"`      // the variable whose values are added up; negative ones are left out
	Ratio    string        `json:"ratio,omitempty"`    // CEL over the event alone: for which share of the events it holds, 0 to 1; 0 without events
	Change   bool          `json:"change,omitempty"`   // how many times as many events as is usual come in the newest quarter of Within
	By       []string      `json:"by"`                 // one count per combination of these fields; "all" alone: one count
	Within   time.Duration `json:"within"`             // 1 s to 7 d
	Where    string        `json:"where,omitempty"`    // CEL over the event alone; empty: every event
}

const (
	maxCounters = 16 // per rule
	maxBy       = 4  // fields of a key
)

// identity is equal for counters that count the same.
func (c Counter) identity() string {
	change := ""
	if c.Change {
		change = "events"
	}
	return strings.Join([]string{c.Distinct, c.Sum, c.Ratio, change, strings.Join(c.By, ","), c.Within.String(), c.Where}, "\x00")
}

// whole reports whether c counts in whole numbers.
func (c Counter) whole() bool { return c.Sum == "" && c.Ratio == "" && !c.Change }

// variable declares c for conditions: int where it counts in whole numbers, else double.
func (c Counter) variable(name string) cel.EnvOption {
	if c.whole() {
		return cel.Variable(name, cel.IntType)
	}
	return cel.Variable(name, cel.DoubleType)
}

// amountNames are the variables that can be added up: the whole numbers of an event,
// but for those that are names or read off a clock.
func amountNames() (names []string) {
	for _, v := range variables {
		if v.kind == cel.IntType && v.name != "source.asn" && !strings.HasPrefix(v.name, "local.") {
			names = append(names, v.name)
		}
	}
	return names
}

func (r *draft) readCounters(n *yaml.Node) {
	if r.shape != nil {
		one := r.inner(n, func(n *yaml.Node) { r.readCounter(n, "") })
		r.described(shape{"type": "object", "maxProperties": maxCounters, "additionalProperties": false,
			"patternProperties": shape{counterPattern.String(): one}})
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, "count: want a mapping from names to counters, got %s", kindOf(n))
		return
	}
	if len(n.Content)/2 > maxCounters {
		r.fault(n, "count: %d counters, want at most %d", len(n.Content)/2, maxCounters)
		return
	}
	r.Count = map[string]Counter{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, body := n.Content[i], n.Content[i+1]
		what := "count." + name.Value
		if _, twice := r.Count[name.Value]; twice {
			r.fault(name, "%s: appears twice", what)
			continue
		}
		if name.Kind != yaml.ScalarNode || !counterPattern.MatchString(name.Value) {
			r.fault(name, "count: name %s: want lower-case letters, digits and underscores", shown(name))
			continue
		}
		if taken(name.Value) {
			r.fault(name, "count: name %q means something else in conditions: choose another", name.Value)
			continue
		}
		r.Count[name.Value] = r.readCounter(body, name.Value)
		r.counts = append(r.counts, name)
	}
}

// countingKeys are the keys that say what is counted; a counter has one of them.
var countingKeys = []string{"count", "distinct", "sum", "ratio", "change"}

func (r *draft) readCounter(n *yaml.Node, name string) (c Counter) {
	what := "count." + name
	kinds := 0
	events := func(key string) field {
		return field{key, false, func(n *yaml.Node) {
			kinds++
			r.choice(n, what+"."+key, []string{"events"})
			c.Change = key == "change"
		}}
	}
	choice := func(key string, of []string, into *string) field {
		return field{key, false, func(n *yaml.Node) {
			kinds++
			*into = r.choice(n, what+"."+key, of)
		}}
	}
	r.mapping(n, what,
		events("count"),
		choice("distinct", fieldNames, &c.Distinct),
		choice("sum", amountNames(), &c.Sum),
		field{"ratio", false, func(n *yaml.Node) {
			kinds++
			if s, ok := r.text(n, what+".ratio"); ok {
				c.Ratio, r.ratio[name] = s, n
			}
		}},
		events("change"),
		field{"by", true, func(n *yaml.Node) { c.By = r.readBy(n, what+".by") }},
		field{"within", true, r.durationInto(what+".within", time.Second, 7*day, &c.Within)},
		field{"where", false, func(n *yaml.Node) {
			if s, ok := r.text(n, what+".where"); ok {
				c.Where, r.where[name] = s, n
			}
		}})
	r.describeOne(countingKeys...)
	if n.Kind == yaml.MappingNode && kinds != 1 {
		r.fault(n, "%s: %d of the keys %s, want one: what is counted", what, kinds, strings.Join(countingKeys, ", "))
	}
	return c
}

func (r *draft) readBy(n *yaml.Node, what string) (by []string) {
	if r.shape != nil {
		several := r.inner(n, func(n *yaml.Node) {
			r.list(n, what, maxBy, func(e *yaml.Node) { r.choice(e, what, fieldNames) })
		})
		r.described(shape{"oneOf": []shape{{"enum": append([]string{"all"}, fieldNames...)}, several}})
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		if n.Value == "all" {
			return []string{"all"}
		}
		return []string{r.choice(n, what, append([]string{"all"}, fieldNames...))}
	}
	r.list(n, what, maxBy, func(e *yaml.Node) {
		f := r.choice(e, what, fieldNames)
		if slices.Contains(by, f) && f != "" {
			r.fault(e, "%s: %s appears twice", what, f)
		}
		by = append(by, f)
	})
	return by
}
