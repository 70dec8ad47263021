package rules

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/kidoban/kidoban/detectors"
)

// A condition that is always true or always false, or that has a part which is, given
// what stands before it, says something else than its author meant. It is found by
// following what each variable can still be from left to right: numbers as intervals,
// text as the words that are left. What cannot be followed counts as able to be both,
// so nothing is called constant that is not.

// values is what an expression can be: of one type, the others are not used.
type values struct {
	kind       valueKind
	span       span
	words      words
	yes, no    bool // truth: whether it can be true, and false
	changeless bool // names no variable
}

type valueKind uint8

const (
	anything valueKind = iota
	numbers
	texts
	truths
)

// span is the numbers between two bounds.
type span struct {
	least, most float64
	over, under bool // the bound itself is not one of them
	whole       bool // only whole numbers are
}

var everyNumber = span{least: math.Inf(-1), most: math.Inf(1)}

// tight brings the bounds of whole numbers to whole numbers.
func (s span) tight() span {
	if !s.whole {
		return s
	}
	if least := math.Ceil(s.least); least > s.least {
		s.least, s.over = least, false
	} else if s.over {
		s.least, s.over = s.least+1, false
	}
	if most := math.Floor(s.most); most < s.most {
		s.most, s.under = most, false
	} else if s.under {
		s.most, s.under = s.most-1, false
	}
	return s
}

func (s span) empty() bool { return s.least > s.most || s.least == s.most && (s.over || s.under) }

// and is what s and o have in common.
func (s span) and(o span) span {
	switch {
	case o.least > s.least:
		s.least, s.over = o.least, o.over
	case o.least == s.least:
		s.over = s.over || o.over
	}
	switch {
	case o.most < s.most:
		s.most, s.under = o.most, o.under
	case o.most == s.most:
		s.under = s.under || o.under
	}
	s.whole = s.whole || o.whole
	return s.tight()
}

// or is at least what s or o are, their bounds included.
func (s span) or(o span) span {
	return span{least: min(s.least, o.least), most: max(s.most, o.most), whole: s.whole && o.whole}
}

// one reports whether s is a single number.
func (s span) one() bool { return s.least == s.most }

// words is text: one of only, or with nil any, and none of not.
type words struct{ only, not []string }

func (w words) and(o words) words {
	out := words{not: append(slices.Clone(w.not), o.not...)}
	switch {
	case w.only == nil:
		out.only = o.only
	case o.only == nil:
		out.only = w.only
	default:
		out.only = []string{}
		for _, s := range w.only {
			if slices.Contains(o.only, s) {
				out.only = append(out.only, s)
			}
		}
	}
	if out.only != nil {
		out.only = slices.DeleteFunc(slices.Clone(out.only), func(s string) bool { return slices.Contains(out.not, s) })
	}
	return out
}

func (w words) empty() bool { return w.only != nil && len(w.only) == 0 }
func (w words) one() bool   { return len(w.only) == 1 }

func able(yes, no bool) values { return values{kind: truths, yes: yes, no: no} }

var unsure = able(true, true)

// world is what is known of variables at a place of a condition.
type world map[string]values

// constancy looks for constant parts of one condition.
type constancy struct {
	native *ast.AST
	ranges map[string]values // of counters
	told   map[int64]string  // by id of the part: what is wrong with it
}

// constants says which parts of a checked condition cannot change, by id.
func constants(checked *cel.Ast, ranges map[string]values) map[int64]string {
	c := &constancy{native: checked.NativeRep(), ranges: ranges, told: map[int64]string{}}
	c.judge(c.native.Expr(), world{}, true)
	return c.told
}

// judge is whether e can be true and false in w, and tells of its constant parts.
// Where first holds nothing stands before e.
func (c *constancy) judge(e ast.Expr, w world, first bool) values {
	if !joins(e) {
		v := c.eval(e, w)
		switch {
		case v.changeless:
			c.told[e.ID()] = "names nothing that can change: leave it out"
			return unsure
		case v.kind != truths || v.yes && v.no:
			return unsure
		}
		always := "false"
		if v.yes {
			always = "true"
		}
		if first {
			c.told[e.ID()] = fmt.Sprintf("is always %s", always)
		} else {
			c.told[e.ID()] = fmt.Sprintf("is always %s, given what stands before it", always)
		}
		return v
	}
	args := e.AsCall().Args()
	switch e.AsCall().FunctionName() {
	case operators.LogicalNot:
		v := c.judge(args[0], w, first)
		return able(v.no, v.yes)
	case operators.LogicalAnd, operators.LogicalOr:
		and := e.AsCall().FunctionName() == operators.LogicalAnd
		left := c.judge(args[0], w, first)
		if and && !left.yes || !and && !left.no { // the rest is never asked
			return left
		}
		right := c.judge(args[1], c.assume(args[0], w, and), false)
		if and {
			return able(left.yes && right.yes, left.no || right.no)
		}
		return able(left.yes || right.yes, left.no && right.no)
	}
	chosen := c.judge(args[0], w, first)
	out := able(false, false)
	for i, holds := range []bool{true, false} {
		if holds && !chosen.yes || !holds && !chosen.no {
			continue
		}
		v := c.judge(args[1+i], c.assume(args[0], w, holds), false)
		out.yes, out.no = out.yes || v.yes, out.no || v.no
	}
	return out
}

// eval is what e can be in w.
func (c *constancy) eval(e ast.Expr, w world) values {
	if r := c.native.ReferenceMap()[e.ID()]; r != nil && r.Name != "" {
		return c.variable(r.Name, e, w)
	}
	switch e.Kind() {
	case ast.LiteralKind:
		return literal(e)
	case ast.ListKind:
		return values{changeless: c.changeless(e, w)}
	case ast.CallKind:
		v := c.call(e, w)
		v.changeless = c.changeless(e, w)
		return v
	}
	return values{}
}

// changeless reports whether all operands of e are.
func (c *constancy) changeless(e ast.Expr, w world) bool {
	var operands []ast.Expr
	if e.Kind() == ast.ListKind {
		operands = e.AsList().Elements()
	} else {
		operands = e.AsCall().Args()
		if e.AsCall().IsMemberFunction() {
			operands = append([]ast.Expr{e.AsCall().Target()}, operands...)
		}
	}
	return !slices.ContainsFunc(operands, func(o ast.Expr) bool { return !c.eval(o, w).changeless })
}

func literal(e ast.Expr) values {
	v := values{changeless: true}
	number := func(f float64, whole bool) {
		v.kind, v.span = numbers, span{least: f, most: f, whole: whole}
		if math.Abs(f) > 1<<53 {
			v.span = span{least: math.Inf(-1), most: math.Inf(1), whole: whole}
		}
	}
	switch l := e.AsLiteral().(type) {
	case types.Int:
		number(float64(l), true)
	case types.Uint:
		number(float64(l), true)
	case types.Double:
		number(float64(l), false)
	case types.String:
		v.kind, v.words = texts, words{only: []string{string(l)}}
	case types.Bool:
		v.kind, v.yes, v.no = truths, bool(l), !bool(l)
	}
	return v
}

// counterRange is what a counter can be. None is negative.
func counterRange(of Counter) values {
	s := span{most: math.Inf(1), whole: of.whole()}
	if of.Ratio != "" {
		s.most = 1
	}
	return values{kind: numbers, span: s}
}

// variable is what name can be in w.
func (c *constancy) variable(name string, e ast.Expr, w world) values {
	if v, ok := w[name]; ok {
		return v
	}
	if v, ok := c.ranges[name]; ok {
		return v
	}
	if v, ok := limits[name]; ok {
		return v
	}
	switch t := c.native.GetType(e.ID()); {
	case t.IsExactType(cel.IntType):
		return values{kind: numbers, span: span{least: math.Inf(-1), most: math.Inf(1), whole: true}}
	case t.IsExactType(cel.DoubleType):
		return values{kind: numbers, span: everyNumber}
	case t.IsExactType(cel.BoolType):
		return unsure
	case t.IsExactType(cel.StringType):
		return values{kind: texts}
	}
	return values{}
}

// limits is what variables and signals can be, where that is less than their type.
var limits = func() map[string]values {
	limits := map[string]values{}
	number := func(name string, most float64, whole bool) {
		limits[name] = values{kind: numbers, span: span{most: most, whole: whole}}
	}
	number("history.logins", 255, true)
	number("source.capacity", 1000, true)
	number("source.asn", 1<<32-1, true)
	number("password.popularity", 48, true)
	number("local.hour", 23, true)
	number("local.weekday", 6, true)
	number("size", math.Inf(1), true)
	number("targets", math.Inf(1), true)
	for name, only := range map[string][]string{
		"kind": trialKinds, "outcome": trialOutcomes, "route": append([]string{""}, trialRoutes...),
		"existence":    {"", "exists", "missing"},
		"device.state": {"", "stranger", "probation", "trusted", "forked"},
	} {
		limits[name] = values{kind: texts, words: words{only: only}}
	}
	for _, s := range catalog() {
		limits[s.Name] = values{kind: numbers, span: signalSpan(s)}
	}
	return limits
}()

// signalSpan has 0 always: a signal that is not said is 0.
func signalSpan(s detectors.Description) span {
	if s.Min == 0 && s.Max == 0 {
		return span{most: math.Inf(1)}
	}
	return span{least: min(s.Min, 0), most: max(s.Max, 0)}
}

// call is what an operator or function can give.
func (c *constancy) call(e ast.Expr, w world) values {
	call := e.AsCall()
	args := call.Args()
	if joins(e) {
		if call.FunctionName() != operators.Conditional {
			return unsure
		}
		a, b := c.eval(args[1], w), c.eval(args[2], w)
		if a.kind != numbers || b.kind != numbers {
			return values{}
		}
		return values{kind: numbers, span: a.span.or(b.span)}
	}
	switch name := call.FunctionName(); name {
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		if v, ok := c.same(name, args); ok {
			return v
		}
		return compared(name, c.eval(args[0], w), c.eval(args[1], w))
	case operators.In:
		if args[1].Kind() != ast.ListKind {
			return unsure
		}
		out := able(false, true)
		for _, element := range args[1].AsList().Elements() {
			v := compared(operators.Equals, c.eval(args[0], w), c.eval(element, w))
			out.yes, out.no = out.yes || v.yes, out.no && v.no
		}
		return out
	case operators.Add, operators.Subtract, operators.Multiply:
		a, b := c.eval(args[0], w), c.eval(args[1], w)
		if a.kind != numbers || b.kind != numbers {
			return values{}
		}
		return values{kind: numbers, span: arithmetic(name, a.span, b.span)}
	case operators.Negate:
		if a := c.eval(args[0], w); a.kind == numbers {
			return values{kind: numbers, span: span{least: -a.span.most, most: -a.span.least, over: a.span.under, under: a.span.over, whole: a.span.whole}}
		}
	case "double":
		if a := c.eval(args[0], w); a.kind == numbers {
			a.span.whole = false
			return values{kind: numbers, span: a.span}
		}
	case "size":
		return values{kind: numbers, span: span{most: math.Inf(1), whole: true}}
	}
	switch t := c.native.GetType(e.ID()); {
	case t.IsExactType(cel.BoolType):
		return unsure
	case t.IsExactType(cel.StringType):
		return values{kind: texts}
	case t.IsExactType(cel.IntType):
		return values{kind: numbers, span: span{least: math.Inf(-1), most: math.Inf(1), whole: true}}
	case t.IsExactType(cel.DoubleType):
		return values{kind: numbers, span: everyNumber}
	}
	return values{}
}

// same knows comparisons of an expression with itself. Divisions may give no number,
// which equals nothing.
func (c *constancy) same(operator string, args []ast.Expr) (values, bool) {
	left, err := cel.ExprToString(args[0], c.native.SourceInfo())
	right, err2 := cel.ExprToString(args[1], c.native.SourceInfo())
	divides := false
	ast.PostOrderVisit(args[0], ast.NewExprVisitor(func(e ast.Expr) {
		divides = divides || e.Kind() == ast.CallKind && slices.Contains([]string{operators.Divide, operators.Modulo}, e.AsCall().FunctionName())
	}))
	if err != nil || err2 != nil || left != right || divides {
		return values{}, false
	}
	equal := operator == operators.Equals || operator == operators.LessEquals || operator == operators.GreaterEquals
	return able(equal, !equal), true
}

// compared is what a comparison can give.
func compared(operator string, a, b values) values {
	switch {
	case a.kind == numbers && b.kind == numbers:
		less := a.span.least < b.span.most
		more := a.span.most > b.span.least
		equal := !a.span.and(b.span).empty()
		switch operator {
		case operators.Less:
			return able(less, equal || more)
		case operators.LessEquals:
			return able(less || equal, more)
		case operators.Greater:
			return able(more, equal || less)
		case operators.GreaterEquals:
			return able(more || equal, less)
		case operators.Equals:
			return able(equal, less || more)
		default:
			return able(less || more, equal)
		}
	case a.kind == texts && b.kind == texts:
		equal, differ := !a.words.and(b.words).empty(), !(a.words.one() && b.words.one() && a.words.only[0] == b.words.only[0])
		switch operator {
		case operators.Equals:
			return able(equal, differ)
		case operators.NotEquals:
			return able(differ, equal)
		}
	case a.kind == truths && b.kind == truths:
		equal, differ := a.yes && b.yes || a.no && b.no, a.yes && b.no || a.no && b.yes
		switch operator {
		case operators.Equals:
			return able(equal, differ)
		case operators.NotEquals:
			return able(differ, equal)
		}
	}
	return unsure
}

// arithmetic follows bounds; where they overflow nothing is known of them.
func arithmetic(operator string, a, b span) span {
	out := span{whole: a.whole && b.whole}
	switch operator {
	case operators.Add:
		out.least, out.most = a.least+b.least, a.most+b.most
		out.over, out.under = a.over || b.over, a.under || b.under
	case operators.Subtract:
		out.least, out.most = a.least-b.most, a.most-b.least
		out.over, out.under = a.over || b.under, a.under || b.over
	default:
		out.least, out.most = math.Inf(1), math.Inf(-1)
		for _, x := range []float64{a.least, a.most} {
			for _, y := range []float64{b.least, b.most} {
				p := x * y
				if x == 0 || y == 0 {
					p = 0
				}
				out.least, out.most = min(out.least, p), max(out.most, p)
			}
		}
	}
	if math.IsNaN(out.least) || math.Abs(out.least) > 1<<53 {
		out.least, out.over = math.Inf(-1), false
	}
	if math.IsNaN(out.most) || math.Abs(out.most) > 1<<53 {
		out.most, out.under = math.Inf(1), false
	}
	return out
}

// assume is w where e is known to hold, or not to.
func (c *constancy) assume(e ast.Expr, w world, holds bool) world {
	if r := c.native.ReferenceMap()[e.ID()]; r != nil && r.Name != "" {
		return w.with(r.Name, able(holds, !holds))
	}
	if e.Kind() != ast.CallKind {
		return w
	}
	args := e.AsCall().Args()
	switch name := e.AsCall().FunctionName(); name {
	case operators.LogicalNot:
		return c.assume(args[0], w, !holds)
	case operators.LogicalAnd, operators.LogicalOr:
		if holds != (name == operators.LogicalAnd) {
			return w // either operand may be the reason
		}
		return c.assume(args[1], c.assume(args[0], w, holds), holds)
	case operators.In:
		if args[1].Kind() != ast.ListKind {
			return w
		}
		if !holds {
			for _, element := range args[1].AsList().Elements() {
				w = c.narrow(args[0], operators.NotEquals, c.eval(element, w), w)
			}
			return w
		}
		return c.narrow(args[0], operators.Equals, c.either(args[1].AsList().Elements(), w), w)
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		if !holds {
			name = opposites[name]
		}
		left, right := c.eval(args[0], w), c.eval(args[1], w)
		return c.narrow(args[1], mirrored[name], left, c.narrow(args[0], name, right, w))
	}
	return w
}

// either is any of the elements of a list.
func (c *constancy) either(elements []ast.Expr, w world) values {
	var out values
	for i, e := range elements {
		v := c.eval(e, w)
		switch {
		case v.kind != numbers && v.kind != texts || i > 0 && v.kind != out.kind, v.kind == texts && v.words.only == nil:
			return values{}
		case i == 0:
			out = v
			out.words.only = slices.Clone(v.words.only)
		case v.kind == numbers:
			out.span = out.span.or(v.span)
		default:
			out.words.only = append(out.words.only, v.words.only...)
		}
	}
	return out
}

var opposites = map[string]string{
	operators.Equals: operators.NotEquals, operators.NotEquals: operators.Equals,
	operators.Less: operators.GreaterEquals, operators.GreaterEquals: operators.Less,
	operators.Greater: operators.LessEquals, operators.LessEquals: operators.Greater,
}

var mirrored = map[string]string{
	operators.Equals: operators.Equals, operators.NotEquals: operators.NotEquals,
	operators.Less: operators.Greater, operators.Greater: operators.Less,
	operators.LessEquals: operators.GreaterEquals, operators.GreaterEquals: operators.LessEquals,
}

// narrow is w where the variable e compares so with v. Other expressions are not
// followed.
func (c *constancy) narrow(e ast.Expr, operator string, v values, w world) world {
	r := c.native.ReferenceMap()[e.ID()]
	if r == nil || r.Name == "" {
		return w
	}
	is := c.variable(r.Name, e, w)
	switch {
	case is.kind == numbers && v.kind == numbers:
		limit := everyNumber
		switch operator {
		case operators.Less, operators.LessEquals:
			limit.most, limit.under = v.span.most, v.span.under || operator == operators.Less
		case operators.Greater, operators.GreaterEquals:
			limit.least, limit.over = v.span.least, v.span.over || operator == operators.Greater
		case operators.Equals:
			limit = v.span
		case operators.NotEquals:
			if v.span.one() && v.span.least == is.span.least {
				limit.least, limit.over = v.span.least, true
			}
			if v.span.one() && v.span.most == is.span.most {
				limit.most, limit.under = v.span.most, true
			}
		}
		is.span = is.span.and(limit)
	case is.kind == texts && v.kind == texts && operator == operators.Equals:
		is.words = is.words.and(v.words)
	case is.kind == texts && v.kind == texts && operator == operators.NotEquals && v.words.one():
		is.words = is.words.and(words{not: v.words.only})
	case is.kind == truths && v.kind == truths && v.yes != v.no && (operator == operators.Equals || operator == operators.NotEquals):
		equal := operator == operators.Equals
		is = able(is.yes && v.yes == equal, is.no && v.no == equal)
	default:
		return w
	}
	return w.with(r.Name, is)
}

func (w world) with(name string, v values) world {
	w = maps.Clone(w)
	w[name] = v
	return w
}
