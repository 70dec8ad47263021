package rules

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/kidoban/kidoban/detectors"
)

// Explanation says why a rule matched: what its condition was asked, and which parts
// of it decided.
type Explanation struct {
	File string `json:"file"`
	When string `json:"when"`
	// Parts are the comparisons of the condition in the order of the text: what stands
	// between &&, ||, ! and ?:.
	Parts []Part `json:"parts"`
	// Values has every variable, counter and signal that the condition names: int64,
	// float64, bool or string; times as RFC 3339 has them.
	Values map[string]any `json:"values"`
}

// Part is a comparison within a condition.
type Part struct {
	Text   string `json:"text"`
	Line   int    `json:"line"` // of the file, from 1, as Column
	Column int    `json:"column"`
	// Result is true, false, error where it cannot be evaluated, or unasked where the
	// condition has another branch.
	Result string `json:"result"`
	// Decided: the condition holds because of it. Of a || b with a alone true, only a.
	Decided bool     `json:"decided"`
	Names   []string `json:"names,omitempty"` // of Values, that it speaks of
}

// Explain says why s matched e with f, which it did not long ago: with the values that
// f has, whatever was counted since. It evaluates the whole condition again, so it is
// not for the way of a request. The error is that s has not the rule, or not that
// generation of it, or that f is none of its matches.
func (s *Set) Explain(f Finding, e detectors.Event) (Explanation, error) {
	i := slices.IndexFunc(s.rules, func(r *compiled) bool { return r.ID == f.Rule && r.Generation == f.Generation })
	if i < 0 {
		return Explanation{}, fmt.Errorf("explaining a match of rule %s: its generation %.12s is not in force any more", f.Rule, f.Generation)
	}
	r := s.rules[i]
	x, err := r.when.explain(&past{event: &e, values: f.Values})
	if err != nil {
		return Explanation{}, fmt.Errorf("explaining a match of rule %s: %w", f.Rule, err)
	}
	x.File, x.When = r.File, r.When
	return x, nil
}

// past answers with what counters and signals were when a rule matched. It implements
// [cel.Activation].
type past struct {
	event  *detectors.Event
	values map[string]any
	whole  map[string]bool // counters of type int: findings have all as float64
}

// ResolveName implements [cel.Activation].
func (p *past) ResolveName(name string) (any, bool) {
	if i, ok := variableIndex[name]; ok {
		return variables[i].value(p.event), true
	}
	v, ok := p.values[name]
	switch n := v.(type) {
	case float64:
		if p.whole[name] {
			return types.Int(n), ok
		}
		return types.Double(n), ok
	case string:
		return types.String(n), ok
	}
	return v, ok
}

// Parent implements [cel.Activation].
func (p *past) Parent() cel.Activation { return nil }

// tracer is what explains a condition; it is made when it is first needed.
type tracer struct {
	env *cel.Env
	ast *cel.Ast
	// places are where the parts of the condition begin in the file, line and column by
	// id of the expression.
	places map[int64][2]int
	whole  map[string]bool // names of type int

	once    sync.Once
	program cel.Program
	err     error
}

// newTracer notes where the parts of an expression are; at turns a place in its text
// into one in the file.
func newTracer(env *cel.Env, checked *cel.Ast, expression string, at func(line, column int) (int, int)) *tracer {
	text := []rune(expression)
	t := &tracer{env: env, ast: checked, places: map[int64][2]int{}, whole: map[string]bool{}}
	native := checked.NativeRep()
	for id, r := range native.ReferenceMap() {
		if r.Name != "" && native.GetType(id).IsExactType(cel.IntType) {
			t.whole[r.Name] = true
		}
	}
	for _, part := range partsOf(native.Expr()) {
		first := int32(-1)
		ast.PostOrderVisit(part, ast.NewExprVisitor(func(e ast.Expr) {
			if r, ok := native.SourceInfo().GetOffsetRange(e.ID()); ok && (first < 0 || r.Start < first) {
				first = r.Start
			}
		}))
		for first > 0 && named(text[first-1]) { // of a.b the place is that of the dot
			first--
		}
		place := native.SourceInfo().GetLocationByOffset(max(first, 0))
		line, column := at(place.Line(), place.Column())
		t.places[part.ID()] = [2]int{line, column}
	}
	return t
}

// named reports whether c may stand in a name with dots.
func named(c rune) bool {
	return c == '.' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// partsOf lists the comparisons of a condition, from left to right.
func partsOf(e ast.Expr) (parts []ast.Expr) {
	if !joins(e) {
		return []ast.Expr{e}
	}
	for _, operand := range e.AsCall().Args() {
		parts = append(parts, partsOf(operand)...)
	}
	return parts
}

// joins reports whether e is made of conditions.
func joins(e ast.Expr) bool {
	if e.Kind() != ast.CallKind {
		return false
	}
	switch e.AsCall().FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional:
		return true
	}
	return false
}

// explain evaluates all of x and says which parts made it what it is.
func (x *expression) explain(p *past) (Explanation, error) {
	t := x.tracer
	t.once.Do(func() { t.program, t.err = t.env.Program(t.ast, cel.EvalOptions(cel.OptExhaustiveEval)) })
	if t.err != nil {
		return Explanation{}, t.err
	}
	p.whole = t.whole
	for _, name := range x.names {
		if _, ok := p.ResolveName(name); !ok {
			return Explanation{}, fmt.Errorf("the match has no value of %s", name)
		}
	}
	result, details, err := t.program.Eval(p)
	if err != nil || result != types.True {
		return Explanation{}, fmt.Errorf("with the values of then the condition gives %v, %v", result, err)
	}
	value := func(e ast.Expr) ref.Val {
		v, _ := details.State().Value(e.ID())
		return v
	}
	deciding := map[int64]bool{}
	decide(t.ast.NativeRep().Expr(), value, deciding)

	out := Explanation{Values: map[string]any{}}
	for _, name := range x.names {
		v, _ := p.ResolveName(name)
		out.Values[name] = plain(v)
	}
	for _, e := range partsOf(t.ast.NativeRep().Expr()) {
		text, err := cel.ExprToString(e, t.ast.NativeRep().SourceInfo())
		if err != nil {
			return Explanation{}, err
		}
		part := Part{Text: text, Line: t.places[e.ID()][0], Column: t.places[e.ID()][1], Result: "error", Decided: deciding[e.ID()]}
		switch v := value(e).(type) {
		case nil:
			part.Result = "unasked"
		case types.Bool:
			part.Result = strconv.FormatBool(bool(v))
		}
		references := t.ast.NativeRep().ReferenceMap()
		ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
			if r := references[e.ID()]; r != nil && r.Name != "" && !slices.Contains(part.Names, r.Name) {
				part.Names = append(part.Names, r.Name)
			}
		}))
		slices.Sort(part.Names)
		out.Parts = append(out.Parts, part)
	}
	return out, nil
}

// decide marks the parts by which e has the value that it has.
func decide(e ast.Expr, value func(ast.Expr) ref.Val, deciding map[int64]bool) {
	if !joins(e) {
		deciding[e.ID()] = true
		return
	}
	call := e.AsCall()
	operands := call.Args()
	switch call.FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr:
		// One operand that is enough by itself decides; where none is, all do.
		enough := types.Bool(call.FunctionName() == operators.LogicalOr)
		if value(e) == enough {
			operands = slices.DeleteFunc(slices.Clone(operands), func(o ast.Expr) bool { return value(o) != enough })
		}
	case operators.Conditional:
		chosen := operands[2]
		if value(operands[0]) == types.True {
			chosen = operands[1]
		}
		operands = []ast.Expr{operands[0], chosen}
	}
	for _, o := range operands {
		decide(o, value, deciding)
	}
}

// plain is a value as JSON has it.
func plain(v any) any {
	switch v := v.(type) {
	case types.Int:
		return int64(v)
	case types.Double:
		return float64(v)
	case types.Bool:
		return bool(v)
	case types.String:
		return string(v)
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339)
	}
	return v
}
