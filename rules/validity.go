package rules

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/go-playground/validator/v10"
	"go.yaml.in/yaml/v3"
)

// validity is what the fields of a [Rule] may hold, whatever a reader of files lets
// through: their tags say so.
var validity = sync.OnceValue(func() *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(f reflect.StructField) string {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return name
	})
	err := v.RegisterValidation("line", func(f validator.FieldLevel) bool {
		return !strings.ContainsFunc(f.Field().String(), unicode.IsControl)
	})
	if err != nil {
		panic(err) // the tag is ours
	}
	return v
})

// check tells what r may not hold, at its place in the file.
func (r *draft) check() {
	err := validity().Struct(r.Rule)
	broken, _ := errors.AsType[validator.ValidationErrors](err)
	for _, b := range broken {
		_, path, _ := strings.Cut(b.Namespace(), ".")
		n := r.at(path)
		switch b.Tag() {
		case "max":
			r.fault(n, "%s: %d characters, want at most %s", path, utf8.RuneCountInString(fmt.Sprint(b.Value())), b.Param())
		case "line":
			r.fault(n, "%s: want one line, without control characters", path)
		default:
			r.fault(n, "%s: want %s %s", path, b.Tag(), b.Param())
		}
	}
}

var step = regexp.MustCompile(`[^.\[\]]+`)

// at is the node of a path such as except[0].owner, or the nearest around it.
func (r *draft) at(path string) *yaml.Node {
	n := r.node
	for _, s := range step.FindAllString(path, -1) {
		found := false
		if i, err := strconv.Atoi(s); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			n, found = n.Content[i], true
		}
		for i := 0; n.Kind == yaml.MappingNode && !found && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == s {
				n, found = n.Content[i+1], true
			}
		}
		if !found {
			break
		}
	}
	return n
}
