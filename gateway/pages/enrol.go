package pages

import "time"

// Owed says that a factor must be set up before the person can go on, and offers the
// ways there are.
type Owed struct {
	CSRF     string
	Evidence bool   // it is known to be the owner: a factor can be set up here and now
	Action   string // form: sets up, by POST with FieldCSRF and FieldDo "key" or "totp"

	Mail       []string // where a link can be sent, masked
	LinkAction string   // form: sends it, by POST with FieldCSRF; empty: not offered
	Sent       bool     // it was just sent

	CodeAction string        // form: FieldCode of an administrator; empty: not offered
	Failed     bool          // that code was not right
	Wait       time.Duration // no code is looked at until then
	Cancel     string        // form: gives up, by POST with FieldCSRF; empty: not offered
}

func (o Owed) screen() screen {
	forms := o.Evidence || o.LinkAction != "" || o.CodeAction != "" || o.Cancel != ""
	return screen{template: "owed", title: "owed.title", forms: forms}
}

// EnrolTOTP gives an app its secret and asks for its first code: FieldCode to Action.
type EnrolTOTP struct {
	Action, CSRF string
	URI          string // otpauth://totp/..., at most 512 bytes
	Secret       string // the same for those who type it, in groups
	Account      string // what the app will show beside the service's name
	Failed       bool
	Cancel       string // link: back; empty: none
}

func (EnrolTOTP) screen() screen {
	return screen{template: "enrol-totp", title: "enrol-totp.title", forms: true}
}

// EnrolKey binds a passkey or security key: FieldKey and FieldName to Action.
type EnrolKey struct {
	Action, CSRF string
	Begin        string // where the script gets options, by POST with FieldCSRF and FieldName: JSON
	Name         string // what the field for the name begins with
	Failed       bool
	Cancel       string // link: back; empty: none
}

func (EnrolKey) screen() screen {
	return screen{template: "enrol-key", title: "enrol-key.title", keys: true, forms: true}
}

// Codes shows recovery codes, once. Who goes on says to have kept them: FieldKept "1"
// to Next, by POST.
type Codes struct {
	CSRF     string
	Codes    []string
	Account  string // for the print
	Next     string
	Replaced bool // former ones are void now
}

func (Codes) screen() screen { return screen{template: "codes", title: "codes.title", forms: true} }

// EnrolLink is behind the mailed link: the link alone does nothing, its button sends
// FieldCSRF to Action.
type EnrolLink struct {
	Action, CSRF string
	Usable       bool // this browser is the one that is signing in
}

func (l EnrolLink) screen() screen {
	return screen{template: "enrol-link", title: "enrol-link.title", forms: l.Usable}
}

var enrolWords = map[string]phrase{
	"owed.title":      {"Set up a second step", "二要素認証を設定してください"},
	"owed.intro":      {"%s asks for a second step when you sign in, and your account has none yet.", "%s では、ログイン時に二要素認証が必要です。お使いのアカウントにはまだ設定されていません。"},
	"owed.evidence":   {"First we need to be sure that the account is yours. Please choose a way:", "はじめに、ご自身のアカウントであることを確認させてください。次のいずれかの方法をお選びください。"},
	"owed.none":       {"To set one up, please ask your administrator.", "設定については、管理者にお問い合わせください。"},
	"owed.key":        {"Set up a passkey", "パスキーを設定する"},
	"owed.key.hint":   {"The fingerprint, face or PIN of this device, or a security key. It also protects you against imitated pages.", "この端末の指紋・顔・PIN、またはセキュリティキーを使います。偽のページに対しても安全です。"},
	"owed.totp":       {"Set up an authenticator app", "認証アプリを設定する"},
	"owed.totp.hint":  {"An app on your phone shows six digits whenever you sign in.", "ログインのたびに、スマートフォンのアプリに表示される6桁の数字を入力します。"},
	"owed.link":       {"By mail", "メールで確認する"},
	"owed.link.hint":  {"We send a link to the address that is on file for you:", "登録されている次のアドレスにリンクをお送りします。"},
	"owed.link.none":  {"We send a link to the address that is on file for you.", "登録されているアドレスにリンクをお送りします。"},
	"owed.link.go":    {"Mail me a link", "リンクを送る"},
	"owed.link.again": {"Mail it again", "もう一度送る"},
	"owed.sent":       {"The link is on its way. Open it in this browser, on this device.", "リンクをお送りしました。この端末の、このブラウザーで開いてください。"},
	"owed.code":       {"With a code from your administrator", "管理者から受け取ったコードを使う"},
	"owed.code.label": {"Code", "コード"},
	"owed.code.hint":  {"If you have none, ask your administrator for it. Capitals and hyphens do not matter.", "お持ちでない場合は、管理者にお問い合わせください。大文字・小文字やハイフンの有無は問いません。"},
	"owed.code.go":    {"Use this code", "このコードを使う"},
	"owed.failed":     {"The code was not right. Please check it and try again.", "コードを確認できませんでした。内容をお確かめのうえ、もう一度お試しください。"},

	"enrol-totp.title":  {"Set up an authenticator app", "認証アプリの設定"},
	"enrol-totp.scan":   {"Scan this with the app", "アプリで読み取ります"},
	"enrol-totp.how":    {"Open an authenticator app on your phone, add an account, and scan the picture.", "スマートフォンの認証アプリを開き、アカウントの追加を選んで、次の画像を読み取ってください。"},
	"enrol-totp.qr":     {"QR code for the authenticator app. The same key is below as text.", "認証アプリ用の QR コード。同じキーを下に文字で表示しています。"},
	"enrol-totp.app":    {"Open the app on this device", "この端末のアプリで開く"},
	"enrol-totp.type":   {"Cannot scan? Type the key", "読み取れない場合はキーを入力"},
	"enrol-totp.key":    {"Key", "キー"},
	"enrol-totp.kind":   {"Kind", "種類"},
	"enrol-totp.time":   {"Time-based, 6 digits", "時刻ベース、6桁"},
	"enrol-totp.secret": {"Show the picture and the key to nobody: who has them can make your codes.", "画像とキーは誰にも見せないでください。知った人は、あなたのコードを作ることができます。"},
	"enrol-totp.check":  {"Type the first code", "最初のコードを入力します"},
	"enrol-totp.failed": {"The code was not right. Please check that the time of your phone is set automatically, and type the code that the app shows now.", "コードを確認できませんでした。スマートフォンの時刻が自動設定になっていることを確かめ、アプリに現在表示されているコードを入力してください。"},
	"enrol-totp.go":     {"Set up this app", "このアプリを設定する"},
	"back":              {"Back", "戻る"},

	"enrol-key.title":     {"Set up a passkey", "パスキーの設定"},
	"enrol-key.intro":     {"Your device will ask for your fingerprint, face or PIN, or for a security key. These never leave your device.", "端末が指紋・顔・PIN、またはセキュリティキーを求めます。これらの情報が端末の外に送られることはありません。"},
	"enrol-key.name":      {"Name", "名前"},
	"enrol-key.name.hint": {"So that you recognize it later, such as “My phone”.", "あとで見分けるための名前です（例: 私のスマートフォン）。"},
	"enrol-key.go":        {"Set up the passkey", "パスキーを設定する"},
	"enrol-key.failed":    {"The passkey could not be set up. Please try again.", "パスキーを設定できませんでした。もう一度お試しください。"},

	"codes.title":    {"Keep your recovery codes", "リカバリーコードを保管してください"},
	"codes.intro":    {"If you lose your phone or key, each of these codes lets you in once. They are shown only now.", "スマートフォンやキーを紛失したとき、それぞれのコードで1回ログインできます。表示されるのは今回だけです。"},
	"codes.keep":     {"Print or write them down and keep them where nobody else finds them, not together with your device.", "印刷するか書き留めて、端末とは別の、ほかの人の目に触れない場所に保管してください。"},
	"codes.replaced": {"Earlier codes no longer work.", "以前のコードは使えなくなりました。"},
	"codes.list":     {"Recovery codes", "リカバリーコード"},
	"codes.kept":     {"I have kept these codes", "コードを保管しました"},

	"enrol-link.title":  {"Set up a second step", "二要素認証の設定"},
	"enrol-link.usable": {"You asked for this link to set up a second step for your account at %s.", "このリンクは、%s のアカウントに二要素認証を設定するためのものです。"},
	"enrol-link.warn":   {"Go on only if you asked for it yourself just now.", "たった今、ご自身で依頼された場合にだけ続けてください。"},
	"enrol-link.other":  {"This browser is not the one that is signing in, so the link does nothing here.", "このブラウザーは、ログイン中のブラウザーではないため、ここではリンクを使えません。"},
	"enrol-link.how":    {"Open the link in the browser in which you gave your password. If that one is closed, or more than ten minutes have passed, sign in again and ask for a new link.", "パスワードを入力したブラウザーで、このリンクを開いてください。すでに閉じた場合や10分以上経過した場合は、もう一度ログインして、新しいリンクをご依頼ください。"},
	"enrol-link.not":    {"If you did not ask for it: do nothing. Somebody may know your password, so change it and tell your administrator.", "お心当たりがない場合は、何もしないでください。パスワードを知られている可能性がありますので、変更して管理者にお知らせください。"},
}
