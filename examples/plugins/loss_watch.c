/* A spiral plugin in C: watches the training loss and publishes a Telemetry event when it jumps or is no number.
 *
 *     cc -O2 -o loss_watch loss_watch.c -lm
 *     plugin = SandboxedPlugin.from_command(["/path/to/loss_watch"])
 *
 * It speaks the protocol of docs/plugin-protocol.md: a JSON-RPC 2.0 message a line, requests on standard input, answers
 * on standard output. A loss is a spike when it lies `threshold` standard deviations above the exponential moving mean
 * (West 1979, with a decay), after `warmup` steps. Settings: threshold, warmup, decay.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE (1 << 20)                  /* the host sends no longer one unless its limits say so */
static char line[LINE + 2];

/* ---- reading JSON: a pointer into the line is a value; NULL is "not there" ---- */

static const char *blank(const char *p) {
    while (*p == ' ' || *p == '\t' || *p == '\r') p++;
    return p;
}

/* The end of a string, after its closing quote. */
static const char *skip_string(const char *p) {
    for (p++; *p && *p != '"'; p++)
        if (*p == '\\' && p[1]) p++;
    return *p ? p + 1 : p;
}

/* The end of any value. */
static const char *skip_value(const char *p) {
    int depth = 0;
    do {
        if (*p == '"') { p = skip_string(p); continue; }
        if (*p == '{' || *p == '[') depth++;
        else if (*p == '}' || *p == ']') depth--;
        else if (!depth && *p == ',') return p;
        if (!*p || depth < 0) return p;
        p++;
    } while (depth || (*p && *p != ',' && *p != '}' && *p != ']'));
    return p;
}

/* The value of a key in an object. */
static const char *member(const char *object, const char *key) {
    if (!object || *(object = blank(object)) != '{') return NULL;
    size_t length = strlen(key);
    const char *p = blank(object + 1);
    while (*p == '"') {
        const char *name = p + 1, *end = skip_string(p);
        p = blank(end);
        if (*p != ':') return NULL;
        p = blank(p + 1);
        if ((size_t)(end - 1 - name) == length && !memcmp(name, key, length)) return p;
        p = blank(skip_value(p));
        if (*p == ',') p = blank(p + 1);
    }
    return NULL;
}

static int is_string(const char *value, const char *text) {
    size_t length = strlen(text);
    return value && *value == '"' && !strncmp(value + 1, text, length) && value[1 + length] == '"';
}

/* A number, or what {"$float": "nan"} stands for; `otherwise` where there is neither. */
static double number(const char *value, double otherwise) {
    const char *special = member(value, "$float");
    if (is_string(special, "nan")) return NAN;
    if (is_string(special, "inf")) return INFINITY;
    if (is_string(special, "-inf")) return -INFINITY;
    char *end;
    double found = value ? strtod(value, &end) : 0;
    return value && end != value ? found : otherwise;
}

/* ---- writing JSON ---- */

static void put_number(double x) {
    if (isfinite(x)) printf("%.17g", x);
    else printf("{\"$float\":\"%s\"}", isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
}

static void put_field(const char *name, double x) {
    printf("\"%s\":", name);
    put_number(x);
}

/* Begins an answer to a request whose id is the value `id`; the caller writes the rest and calls `done`. */
static void begin(const char *id, const char *what) {
    printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"%s\":", (int)(skip_value(id) - id), id, what);
}

static void done(void) {
    puts("}");
    fflush(stdout);
}

static void fail(const char *id, int code, const char *message) {
    begin(id, "error");
    printf("{\"code\":%d,\"message\":\"%s\"}", code, message);
    done();
}

/* ---- the plugin ---- */

static double threshold = 6, warmup = 20, decay = 0.98;
static double steps, mean, variance, spikes;

static void publish(const char *what, double step, double loss) {
    printf("{\"jsonrpc\":\"2.0\",\"method\":\"publish\",\"params\":{\"type\":\"Telemetry\",\"data\":{");
    put_field(what, loss);     putchar(',');
    put_field("step", step);   putchar(',');
    put_field("mean", mean);   putchar(',');
    put_field("sigma", sqrt(variance));
    puts("}}}");                        /* flushed with the answer that follows */
}

static void watch(double step, double loss) {
    if (!isfinite(loss)) {
        spikes++;
        publish("loss_not_finite", step, loss);
        return;                         /* the mean would never recover */
    }
    double delta = loss - mean;
    if (steps >= warmup && delta > threshold * sqrt(variance) && delta > 1e-12) {
        spikes++;
        publish("loss_spike", step, loss);
    }
    double keep = steps < 1 ? 0 : fmin(decay, steps / (steps + 1));     /* a plain mean at first */
    mean += (1 - keep) * delta;
    variance = keep * (variance + (1 - keep) * delta * delta);
    steps++;
}

static void put_state(void) {
    putchar('{');
    put_field("steps", steps);         putchar(',');
    put_field("mean", mean);           putchar(',');
    put_field("variance", variance);   putchar(',');
    put_field("spikes", spikes);       putchar('}');
}

static void configure(const char *config) {
    threshold = number(member(config, "threshold"), threshold);
    warmup = number(member(config, "warmup"), warmup);
    decay = number(member(config, "decay"), decay);
}

/* Deals with one message; says whether there will be more. */
static int serve(const char *message) {
    const char *method = member(message, "method"), *id = member(message, "id");
    const char *params = member(message, "params");
    if (!method) return 1;              /* an answer; this plugin asks nothing */
    int known = 1, more = 1;
    if (is_string(method, "event")) {
        const char *data = member(params, "data");
        watch(number(member(data, "step"), steps), number(member(data, "loss"), NAN));
    } else if (is_string(method, "load")) {
        configure(member(params, "config"));
    } else if (is_string(method, "import_state")) {
        const char *state = member(params, "state");
        steps = number(member(state, "steps"), 0);
        mean = number(member(state, "mean"), 0);
        variance = number(member(state, "variance"), 0);
        spikes = number(member(state, "spikes"), 0);
    } else if (is_string(method, "unload")) {
        more = 0;
    } else {
        known = is_string(method, "ping");
    }
    if (!id) {
        fflush(stdout);
    } else if (is_string(method, "initialize")) {
        begin(id, "result");
        printf("{\"protocol\":1,\"id\":\"loss_watch\",\"version\":\"1.0\",\"name\":\"Loss watch\","
               "\"description\":\"Tells when the loss jumps or is no number.\",\"capabilities\":[\"Telemetry\"],"
               "\"methods\":[\"summary\"],\"subscriptions\":[\"StepEnd\"],\"state\":true,"
               "\"config\":{\"threshold\":%g,\"warmup\":%g,\"decay\":%g}}", threshold, warmup, decay);
        done();
    } else if (is_string(method, "export_state")
               || (is_string(method, "call") && is_string(member(params, "method"), "summary"))) {
        begin(id, "result");
        put_state();
        done();
    } else if (known) {
        begin(id, "result");
        printf("null");
        done();
    } else {
        fail(id, -32601, "there is no such method");
    }
    return more;
}

int main(void) {
    while (fgets(line, sizeof line, stdin)) {
        if (!strchr(line, '\n')) return 1;      /* longer than agreed, or cut off */
        if (!serve(line)) return 0;
    }
    return 0;
}
