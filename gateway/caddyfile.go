package gateway

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("kidoban", parseGlobal)
	httpcaddyfile.RegisterHandlerDirective("kidoban", parseHandler)
	httpcaddyfile.RegisterHandlerDirective("kidoban_api", parseAPI)
	// Inside compression, so that answers are plain; before whatever answers.
	httpcaddyfile.RegisterDirectiveOrder("kidoban", httpcaddyfile.After, "encode")
	httpcaddyfile.RegisterDirectiveOrder("kidoban_api", httpcaddyfile.After, "encode")
}

// parseGlobal reads the global option.
//
//	kidoban {
//		service  NAME
//		logo     FILE
//		origin   URL...
//		rp_id    HOST
//		node     NAME
//		data_dir PATH
//		database URL                          # best as {env.NAME} or {file.PATH}
//		redis    URL {                        # best as {env.NAME} or {file.PATH}
//			ca          FILE
//			certificate FILE
//			key         FILE
//			prefix      NAME
//		}
//		record_optional
//		webhook NAME URL {
//			secret SECRET...
//			events EVENT...
//			allow  NETWORK...
//			allow_plain
//		}
//		mail {
//			server  URL                       # best as {env.NAME} or {file.PATH}
//			from    "NAME <ADDRESS>"
//			service NAME
//			link    URL
//			ca      FILE
//			to ADDRESS {
//				events    EVENT...
//				language  en | ja
//				time_zone NAME
//			}
//		}
//		geoip    FILE...
//		breached FILE                         # made by kidoban breached build
//		breached_api URL                      # such as https://api.pwnedpasswords.com
//		rules    DIR
//		rules_memory {
//			total   BYTES                     # of all counters of rules together
//			counter BYTES                     # of one of them
//		}
//		policies DIR
//		mode     observe | enforce            # the whole gate
//		mode     CONTROL... observe           # decisions, attempts, limits, sessions
//		limit NAME {
//			key    address | network | account | session | organization | device | route
//			rate   COUNT/PERIOD
//			routes CLASS...
//			mode   observe | enforce
//		}
//		lax_forwarding
//	}
func parseGlobal(d *caddyfile.Dispenser, existing any) (any, error) {
	app := new(App)
	d.Next() // the option's name
	if existing != nil {
		return nil, d.Err("the kidoban options are given twice: write them in one block")
	}
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	for d.NextBlock(0) {
		switch d.Val() {
		case "service":
			if err := single(d, &app.Service); err != nil {
				return nil, err
			}
		case "logo":
			if err := single(d, &app.Logo); err != nil {
				return nil, err
			}
		case "origin":
			origins := d.RemainingArgs()
			if len(origins) == 0 {
				return nil, d.ArgErr()
			}
			app.Origins = append(app.Origins, origins...)
		case "rp_id":
			if err := single(d, &app.RPID); err != nil {
				return nil, err
			}
		case "node":
			if err := single(d, &app.Node); err != nil {
				return nil, err
			}
		case "data_dir":
			if err := single(d, &app.DataDir); err != nil {
				return nil, err
			}
		case "database":
			if err := single(d, (*string)(&app.Database)); err != nil {
				return nil, err
			}
		case "redis":
			if app.Redis != nil {
				return nil, d.Err("redis is given twice")
			}
			r, err := parseRedis(d)
			if err != nil {
				return nil, err
			}
			app.Redis = r
		case "record_optional":
			if d.NextArg() {
				return nil, d.ArgErr()
			}
			app.RecordOptional = true
		case "webhook":
			w, err := parseWebhook(d)
			if err != nil {
				return nil, err
			}
			app.Webhooks = append(app.Webhooks, w)
		case "mail":
			if app.Mail != nil {
				return nil, d.Err("mail is given twice")
			}
			m, err := parseMail(d)
			if err != nil {
				return nil, err
			}
			app.Mail = m
		case "geoip":
			files := d.RemainingArgs()
			if len(files) == 0 {
				return nil, d.ArgErr()
			}
			app.GeoIP = append(app.GeoIP, files...)
		case "breached":
			if err := single(d, &app.Breached); err != nil {
				return nil, err
			}
		case "breached_api":
			if err := single(d, &app.BreachedAPI); err != nil {
				return nil, err
			}
		case "rules":
			if err := single(d, &app.Rules); err != nil {
				return nil, err
			}
		case "rules_memory":
			if err := parseRulesMemory(d, &app.RulesMemory); err != nil {
				return nil, err
			}
		case "policies":
			if err := single(d, &app.Policies); err != nil {
				return nil, err
			}
		case "mode":
			observe, err := parseMode(d)
			if err != nil {
				return nil, err
			}
			app.Observe = append(app.Observe, observe...)
		case "limit":
			l, err := parseLimit(d)
			if err != nil {
				return nil, err
			}
			app.Limits = append(app.Limits, l)
		case "lax_forwarding":
			if d.NextArg() {
				return nil, d.ArgErr()
			}
			app.LaxForwarding = true
		default:
			return nil, d.Errf("unknown option %q: want service, logo, origin, rp_id, node, data_dir, database, redis, record_optional, webhook, mail, geoip, breached, breached_api, rules, rules_memory, policies, mode, limit or lax_forwarding", d.Val())
		}
	}
	value, err := json.Marshal(app)
	if err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "kidoban", Value: value}, nil
}

// parseMode reads the arguments of `mode` and returns the controls that observe.
func parseMode(d *caddyfile.Dispenser) ([]string, error) {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return nil, d.ArgErr()
	}
	controls, mode := args[:len(args)-1], args[len(args)-1]
	switch {
	case mode == "enforce":
		return nil, nil
	case mode != "observe":
		return nil, d.Errf("unknown mode %q: want observe or enforce", mode)
	case len(controls) == 0:
		return []string{"all"}, nil
	}
	return controls, nil
}

// single reads the one argument of an option that may be given once.
func single(d *caddyfile.Dispenser, into *string) error {
	name := d.Val()
	if *into != "" {
		return d.Errf("%s is given twice", name)
	}
	if !d.AllArgs(into) {
		return d.ArgErr()
	}
	return nil
}

func parseRulesMemory(d *caddyfile.Dispenser, m *RulesMemory) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option, text := d.Val(), ""
		into := map[string]*int64{"total": &m.Total, "counter": &m.Counter}[option]
		if into == nil {
			return d.Errf("unknown option %q of rules_memory: want total or counter", option)
		}
		if *into != 0 {
			return d.Errf("%s of rules_memory is given twice", option)
		}
		if !d.AllArgs(&text) {
			return d.ArgErr()
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return d.Errf("%s of rules_memory: %q: want a number of bytes", option, text)
		}
		*into = n
	}
	return nil
}

func parseRedis(d *caddyfile.Dispenser) (*Redis, error) {
	r := new(Redis)
	if !d.AllArgs((*string)(&r.URL)) {
		return nil, d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		into := map[string]*string{"ca": &r.CA, "certificate": &r.Certificate, "key": &r.Key, "prefix": &r.Prefix}[d.Val()]
		if into == nil {
			return nil, d.Errf("unknown option %q of redis: want ca, certificate, key or prefix", d.Val())
		}
		if err := single(d, into); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func parseWebhook(d *caddyfile.Dispenser) (Webhook, error) {
	var w Webhook
	if !d.AllArgs(&w.Name, (*string)(&w.URL)) {
		return w, d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option, args := d.Val(), d.RemainingArgs()
		if (option == "allow_plain") != (len(args) == 0) {
			return w, d.ArgErr()
		}
		switch option {
		case "secret":
			for _, secret := range args {
				w.Secrets = append(w.Secrets, Secret(secret))
			}
		case "events":
			w.Events = append(w.Events, args...)
		case "allow":
			w.Allow = append(w.Allow, args...)
		case "allow_plain":
			w.AllowPlain = true
		default:
			return w, d.Errf("unknown option %q of a webhook: want secret, events, allow or allow_plain", option)
		}
	}
	return w, nil
}

func parseMail(d *caddyfile.Dispenser) (*Mail, error) {
	m := new(Mail)
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if d.Val() == "to" {
			to, err := parseMailTo(d)
			if err != nil {
				return nil, err
			}
			m.To = append(m.To, to)
			continue
		}
		into := map[string]*string{"server": (*string)(&m.Server), "from": &m.From, "service": &m.Service, "link": &m.Link, "ca": &m.CA}[d.Val()]
		if into == nil {
			return nil, d.Errf("unknown option %q of mail: want server, from, service, link, ca or to", d.Val())
		}
		if err := single(d, into); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func parseMailTo(d *caddyfile.Dispenser) (MailTo, error) {
	var to MailTo
	if !d.AllArgs(&to.Address) {
		return to, d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "events":
			events := d.RemainingArgs()
			if len(events) == 0 {
				return to, d.ArgErr()
			}
			to.Events = append(to.Events, events...)
		case "language":
			if err := single(d, &to.Language); err != nil {
				return to, err
			}
		case "time_zone":
			if err := single(d, &to.TimeZone); err != nil {
				return to, err
			}
		default:
			return to, d.Errf("unknown option %q of to: want events, language or time_zone", d.Val())
		}
	}
	return to, nil
}

func parseLimit(d *caddyfile.Dispenser) (Limit, error) {
	var l Limit
	if !d.AllArgs(&l.Name) {
		return l, d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "key":
			if err := single(d, &l.Key); err != nil {
				return l, err
			}
		case "rate":
			if err := single(d, &l.Rate); err != nil {
				return l, err
			}
		case "routes":
			if l.Routes = d.RemainingArgs(); len(l.Routes) == 0 {
				return l, d.ArgErr()
			}
		case "mode":
			var mode string
			if !d.AllArgs(&mode) || mode != "observe" && mode != "enforce" {
				return l, d.Err("the mode of a limit is observe or enforce, and nothing else")
			}
			l.Observe = mode == "observe"
		default:
			return l, d.Errf("unknown option %q of a limit: want key, rate, routes or mode", d.Val())
		}
	}
	return l, nil
}

// parseHandler reads the directive that guards a site.
//
//	kidoban [MATCHER] {
//		backend        NAME
//		mode           [CONTROL...] observe | enforce
//		max_login_body BYTES
//		assert         AUDIENCE ISSUER        # such as: assert chat https://chat.example.com
//	}
func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	h.Next() // the directive's name
	if h.NextArg() {
		return nil, h.ArgErr()
	}
	for h.NextBlock(0) {
		switch h.Val() {
		case "backend":
			if err := single(h.Dispenser, &handler.Backend); err != nil {
				return nil, err
			}
		case "mode":
			observe, err := parseMode(h.Dispenser)
			if err != nil {
				return nil, err
			}
			handler.Observe = append(handler.Observe, observe...)
		case "max_login_body":
			var text string
			if !h.AllArgs(&text) {
				return nil, h.ArgErr()
			}
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 1 {
				return nil, h.Errf("max_login_body %q: want a number of bytes", text)
			}
			handler.MaxLoginBody = n
		case "assert":
			if handler.Assert != nil {
				return nil, h.Err("assert is given twice")
			}
			handler.Assert = new(Assert)
			if !h.AllArgs(&handler.Assert.Audience, &handler.Assert.Issuer) {
				return nil, h.Err("assert: want the name of the backend and the origin of the site: assert chat https://chat.example.com")
			}
		default:
			return nil, h.Errf("unknown option %q: want backend, mode, max_login_body or assert", h.Val())
		}
	}
	return handler, nil
}

// parseAPI reads the directive that serves the operators' API. Keys and secrets
// are best given as {env.NAME} or {file.PATH}: they then never stand in the
// configuration. Signing secrets must be.
//
//	kidoban_api {
//		key     NAME SECRET               [role ROLE] [expires DATE]
//		aws     NAME ACCESS_KEY_ID SECRET [role ROLE] [expires DATE]
//		service NAME...
//	}
func parseAPI(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	a := new(API)
	h.Next() // the directive's name
	if h.NextArg() {
		return nil, h.ArgErr()
	}
	for h.NextBlock(0) {
		switch h.Val() {
		case "key":
			var k APIKey
			if err := parseOperator(h.Dispenser, &k.Operator, &k.Name, (*string)(&k.Secret)); err != nil {
				return nil, err
			}
			if slices.ContainsFunc(a.Keys, func(other APIKey) bool { return other.Name == k.Name }) {
				return nil, h.Errf("key %q is given twice", k.Name)
			}
			a.Keys = append(a.Keys, k)
		case "aws":
			var k APISigningKey
			if err := parseOperator(h.Dispenser, &k.Operator, &k.Name, &k.AccessKeyID, (*string)(&k.Secret)); err != nil {
				return nil, err
			}
			if slices.ContainsFunc(a.SigningKeys, func(other APISigningKey) bool { return other.AccessKeyID == k.AccessKeyID }) {
				return nil, h.Errf("access key id %q is given twice", k.AccessKeyID)
			}
			a.SigningKeys = append(a.SigningKeys, k)
		case "service":
			names := h.RemainingArgs()
			if len(names) == 0 {
				return nil, h.ArgErr()
			}
			a.Services = append(a.Services, names...)
		default:
			return nil, h.Errf("unknown option %q: want key, aws or service", h.Val())
		}
	}
	return a, nil
}

// parseOperator reads the arguments of a key: the ones that must be, then pairs.
func parseOperator(d *caddyfile.Dispenser, o *Operator, must ...*string) error {
	option := d.Val()
	for _, into := range must {
		if !d.NextArg() {
			return d.ArgErr()
		}
		*into = d.Val()
	}
	for d.NextArg() {
		var into *string
		switch d.Val() {
		case "role":
			into = &o.Role
		case "expires":
			into = &o.Expires
		default:
			// What stands here may be a part of a secret, so it is not repeated.
			return d.Errf("%s: want role ROLE or expires DATE after the secret, and nothing else", option)
		}
		if *into != "" || !d.NextArg() {
			return d.ArgErr()
		}
		*into = d.Val()
	}
	return nil
}
