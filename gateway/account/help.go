package account

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
)

const (
	codeFor = 24 * time.Hour // a code of an administrator is good for
	nameMax = 320            // runes
)

// nobody is what a code is bound to that is good for no account.
const nobody = "nobody"

// administers reports whether the person may help others of the organization.
func (q *request) administers() bool {
	return slices.ContainsFunc(q.Person.Roles, func(role string) bool { return slices.Contains(q.Policy.Administrators, role) })
}

// askHelp asks whom the administrator wants to help.
func (q *request) askHelp() error {
	if !q.administers() {
		return q.none()
	}
	all, err := q.d.Factors.List(q.ctx(), q.Subject)
	if err != nil {
		return err
	}
	view := pages.AccountHelp{Weak: len(active(strong(all))) == 0}
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	return q.page(http.StatusOK, view)
}

// help makes a code with which a colleague may bind the first factor. The
// administrator must have a factor too, and have given it lately: with the password
// of one of them nobody gets into the accounts of all.
//
// Whether there is such an account in the organization is not told: where there is
// none, the code is bound to nobody, and was made by the same work. The owner is told,
// without the code.
func (q *request) help() error {
	if !q.administers() {
		return q.none()
	}
	page := AccountPath + "/help"
	all, err := q.d.Factors.List(q.ctx(), q.Subject)
	if err != nil {
		return err
	}
	if len(active(strong(all))) == 0 {
		return q.to(page)
	}
	if ok, err := q.sure(all, page); !ok {
		return err
	}
	name := strings.TrimSpace(q.r.PostForm.Get(pages.FieldName))
	if name == "" || utf8.RuneCountInString(name) > nameMax || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return q.to(page + "?failed=" + pages.FailedName)
	}
	owner, err := q.colleague(name)
	if err != nil {
		return err
	}
	slip := auth.Slip{ID: rand.Text(), Purpose: auth.SlipEnrolCode, Subject: owner.Subject, By: q.name()}
	if owner.Subject == "" {
		slip.Subject, slip.For = q.Subject, nobody
	}
	body := map[string]string{"for": slip.Subject}
	if owner.Subject == "" {
		body = map[string]string{"for": nobody}
	}
	var code string
	err = q.act(actCode, body, func(ctx context.Context, by auth.Act, at time.Time) error {
		slip.Expires = at.Add(codeFor)
		if owner.Subject != "" { // told before it is there: a code that nobody is told of would be worse than a message too many
			told := message{codeTemplate, digest(owner.Subject) + "/" + slip.ID, map[string]string{"by": q.name(), "until": slip.Expires.UTC().Format(time.RFC3339)}}
			if err := q.d.tell(ctx, owner, nameOf(owner), q.d.addresses(owner), told, at); err != nil {
				return err
			}
		}
		slip, code, err = q.d.Slips.Issue(ctx, slip, auth.Act{By: q.name(), Entry: by.Entry}, at)
		return err
	})
	if err != nil {
		return err
	}
	view := pages.AccountHelpCode{Name: name, Code: code, Until: q.local(slip.Expires)}
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	return q.page(http.StatusOK, view)
}

// colleague is the account of that name, if it is another one of the same
// organization; else the zero person. A backend that knows no organizations is one.
func (q *request) colleague(name string) (auth.Person, error) {
	subject, err := q.d.Resolve(q.ctx(), name)
	if err != nil || subject == "" {
		return auth.Person{}, err
	}
	p, ok, err := q.d.Directory.BySubject(q.ctx(), subject)
	if err != nil || !ok || p.Organization != q.Organization || subject == q.Subject {
		return auth.Person{}, err
	}
	return p, nil
}
