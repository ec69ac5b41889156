/*
 * A PKCS#11 module in front of another, FAULTY_MODULE, that fails where the environment says so:
 *
 *   FAULT=lie:N        after N signatures, each has a flipped bit
 *   FAULT=removed:N    after N signatures, the token is gone
 *   FAULT=locked       the PIN is locked
 *   FAULT=final        the next wrong PIN locks the token
 *   FAULT=locks        a login locks the PIN
 *   FAULT=sessions:N   the token has N sessions
 *   FAULT=slow:N       a signature takes N milliseconds
 *   FAULT=together:N   after the first, signatures fail unless N are made at the same time
 *   FAULT=hashing      the mechanisms that take a hash are missing
 *   FAULT=race         a signature creates the file RACE
 *   FAULT=extractable  keys are extractable
 *   FAULT=unsigning    keys may not sign
 *   FAULT=asking       keys take the PIN for each signature
 *
 * It appends a character to the file LOGINS for each login. The function list has its functions in the order of the standard,
 * so no header is needed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ulong;

enum { FUNCTIONS = 68, GET_TOKEN_INFO = 6, GET_MECHANISM_LIST = 7, OPEN_SESSION = 12, CLOSE_SESSION = 13, LOGIN = 18,
       GET_ATTRIBUTE_VALUE = 24, SIGN = 43 };
enum { CKR_OK = 0, CKR_DEVICE_REMOVED = 0x32, CKR_PIN_LOCKED = 0xA4, CKR_SESSION_COUNT = 0xB1 };
enum { CKF_USER_PIN_FINAL_TRY = 0x20000, CKF_USER_PIN_LOCKED = 0x40000 };
enum { CKA_SIGN = 0x108, CKA_EXTRACTABLE = 0x162, CKA_ALWAYS_AUTHENTICATE = 0x202 };
enum { CKM_RSA_PKCS = 1, CKM_ECDSA = 0x1041, CKM_VENDOR_DEFINED = 0x7FFFFFFF };

struct list { unsigned char version[2]; void *functions[FUNCTIONS]; };
struct token_info { unsigned char texts[96]; ulong flags; };
struct attribute { ulong type; void *value; ulong length; };

static struct list ours;
static void *theirs[FUNCTIONS];
static const char *fault = "";
static long limit;
static long signatures, sessions, signing, together;

static int is(const char *name) { return strncmp(fault, name, strlen(name)) == 0; }

static ulong get_token_info(ulong slot, struct token_info *info) {
    ulong rv = ((ulong (*)(ulong, struct token_info *))theirs[GET_TOKEN_INFO])(slot, info);
    if (rv == CKR_OK && strcmp(fault, "locked") == 0) info->flags |= CKF_USER_PIN_LOCKED;
    if (rv == CKR_OK && is("final")) info->flags |= CKF_USER_PIN_FINAL_TRY;
    return rv;
}

static ulong get_mechanism_list(ulong slot, ulong *list, ulong *count) {
    ulong rv = ((ulong (*)(ulong, ulong *, ulong *))theirs[GET_MECHANISM_LIST])(slot, list, count);
    if (rv == CKR_OK && list && is("hashing"))
        for (ulong i = 0; i < *count; i++)
            if (list[i] == CKM_RSA_PKCS || list[i] == CKM_ECDSA) list[i] = CKM_VENDOR_DEFINED;
    return rv;
}

static ulong open_session(ulong slot, ulong flags, void *application, void *notify, ulong *session) {
    if (is("sessions") && __atomic_add_fetch(&sessions, 1, __ATOMIC_SEQ_CST) > limit) {
        __atomic_sub_fetch(&sessions, 1, __ATOMIC_SEQ_CST);
        return CKR_SESSION_COUNT;
    }
    return ((ulong (*)(ulong, ulong, void *, void *, ulong *))theirs[OPEN_SESSION])(slot, flags, application, notify, session);
}

static ulong close_session(ulong session) {
    __atomic_sub_fetch(&sessions, 1, __ATOMIC_SEQ_CST);
    return ((ulong (*)(ulong))theirs[CLOSE_SESSION])(session);
}

static ulong login(ulong session, ulong user, unsigned char *pin, ulong length) {
    const char *path = getenv("LOGINS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) {
        fputc('x', file);
        fclose(file);
    }
    if (is("locks")) return CKR_PIN_LOCKED;
    return ((ulong (*)(ulong, ulong, unsigned char *, ulong))theirs[LOGIN])(session, user, pin, length);
}

static ulong get_attribute_value(ulong session, ulong object, struct attribute *attributes, ulong count) {
    ulong rv = ((ulong (*)(ulong, ulong, struct attribute *, ulong))theirs[GET_ATTRIBUTE_VALUE])(session, object, attributes, count);
    ulong type = is("extractable") ? CKA_EXTRACTABLE : is("unsigning") ? CKA_SIGN : is("asking") ? CKA_ALWAYS_AUTHENTICATE : 0;
    for (ulong i = 0; type && i < count; i++)
        if (attributes[i].type == type && attributes[i].value && attributes[i].length == 1)
            *(unsigned char *)attributes[i].value = type != CKA_SIGN;
    return rv;
}

/* Waits until enough signatures are made at the same time, or for ten seconds. */
static int wait_for_others(void) {
    long now = __atomic_add_fetch(&signing, 1, __ATOMIC_SEQ_CST);
    if (now >= limit) __atomic_store_n(&together, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 10000 && !__atomic_load_n(&together, __ATOMIC_SEQ_CST); i++) usleep(1000);
    __atomic_sub_fetch(&signing, 1, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&together, __ATOMIC_SEQ_CST);
}

static ulong sign(ulong session, unsigned char *data, ulong length, unsigned char *signature, ulong *signature_length) {
    if (signature && is("slow")) usleep(limit * 1000);
    if (signature && is("race") && getenv("RACE")) {
        FILE *file = fopen(getenv("RACE"), "w");
        if (file) fclose(file);
    }
    if (signature && is("together") && signatures > 0 && !wait_for_others()) return CKR_DEVICE_REMOVED;
    ulong rv = ((ulong (*)(ulong, unsigned char *, ulong, unsigned char *, ulong *))theirs[SIGN])(
        session, data, length, signature, signature_length);
    /* Without a buffer, only the length is asked for. */
    if (rv != CKR_OK || !signature) return rv;
    long number = __atomic_add_fetch(&signatures, 1, __ATOMIC_SEQ_CST);
    if (is("removed") && number > limit) return CKR_DEVICE_REMOVED;
    if (is("lie") && number > limit) signature[*signature_length / 2] ^= 1;
    return rv;
}

ulong C_GetFunctionList(struct list **list) {
    const char *path = getenv("FAULTY_MODULE");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    ulong (*get)(struct list **) = library ? (ulong (*)(struct list **))dlsym(library, "C_GetFunctionList") : NULL;
    struct list *found = NULL;
    if (!get || get(&found) != CKR_OK) return 5; /* CKR_GENERAL_ERROR */
    if (getenv("FAULT")) fault = getenv("FAULT");
    const char *colon = strchr(fault, ':');
    limit = colon ? atol(colon + 1) : 0;
    ours = *found;
    memcpy(theirs, found->functions, sizeof theirs);
    ours.functions[GET_TOKEN_INFO] = (void *)get_token_info;
    ours.functions[GET_MECHANISM_LIST] = (void *)get_mechanism_list;
    ours.functions[OPEN_SESSION] = (void *)open_session;
    ours.functions[CLOSE_SESSION] = (void *)close_session;
    ours.functions[LOGIN] = (void *)login;
    ours.functions[GET_ATTRIBUTE_VALUE] = (void *)get_attribute_value;
    ours.functions[SIGN] = (void *)sign;
    *list = &ours;
    return CKR_OK;
}
