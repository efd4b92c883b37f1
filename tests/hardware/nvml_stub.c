/* A stand-in for libnvidia-ml.so.1: it speaks NVML's ABI for the functions that the server uses, and knows no GPU.
 *
 * What it tells stands in the text file that the variable NVML_STUB names, one `key value` a line, read anew at every
 * call, so that a test can change it while the server runs. Keys of a GPU begin with its number, those of a MIG slice
 * also with the slice's: `0.total`, `0.mig1.total`. `0.fail.nvmlDeviceGetPowerUsage 3` has that call return
 * NVML_ERROR_NOT_SUPPORTED, `0.lost 1` has all of them return NVML_ERROR_GPU_IS_LOST, `fail.nvmlInitWithFlags 18` is a
 * driver that does not fit its library. Compiled with -DOLD_DRIVER it lacks what drivers before 510 lack.
 *
 * Layouts and numbers are NVML's (nvml.h of CUDA 13, as nvidia-ml-py 13.615.71 has them).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10, LOST = 15 };
#define LINE 512
#define MIG_STEP 1000
typedef void *device_t;
typedef unsigned long long u64;

typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned version, sensor; int temperature; } temperature_t;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } process_t;
typedef struct { device_t device; u64 type, data; unsigned gpu_instance, compute_instance; } event_t;
typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} pci_t;

/* The value of a key; NULL where the file has none. */
static char *find(const char *key, char *value) {
    const char *path = getenv("NVML_STUB");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LINE];
    char *found = NULL;
    size_t length = strlen(key);
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            strcpy(value, line + length + 1);
            found = value;
        }
    }
    if (file) fclose(file);
    return found;
}

static u64 number(const char *key, u64 otherwise) {
    char value[LINE];
    return find(key, value) ? strtoull(value, NULL, 0) : otherwise;
}

static unsigned gpu_of(device_t device) { return ((uintptr_t)device - 1) % MIG_STEP; }
static unsigned mig_of(device_t device) { return ((uintptr_t)device - 1) / MIG_STEP; } /* 0: the whole GPU */

static void key_of(device_t device, const char *name, char *key) {
    if (mig_of(device)) snprintf(key, LINE, "%u.mig%u.%s", gpu_of(device), mig_of(device) - 1, name);
    else snprintf(key, LINE, "%u.%s", gpu_of(device), name);
}

static u64 told(device_t device, const char *name, u64 otherwise) {
    char key[LINE];
    key_of(device, name, key);
    return number(key, otherwise);
}

static int fails(device_t device, const char *function) {
    char name[LINE], key[LINE];
    snprintf(name, sizeof name, "fail.%s", function);
    snprintf(key, sizeof key, "%u.lost", gpu_of(device));
    return number(key, 0) ? LOST : (int)told(device, name, OK);
}

#define OF(device) do { int failed = fails(device, __func__); if (failed) return failed; } while (0)
#define NEEDS(device, name) do { if (told(device, name, ~0ULL) == ~0ULL) return NOT_SUPPORTED; } while (0)

static int text(device_t device, const char *name, char *out, unsigned length) {
    char key[LINE], value[LINE];
    key_of(device, name, key);
    if (!find(key, value)) return NOT_SUPPORTED;
    if (strlen(value) >= length) return TOO_SMALL;
    strcpy(out, value);
    return OK;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return (int)number("fail.nvmlInitWithFlags", OK); }
int nvmlShutdown(void) { return OK; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    char value[LINE];
    if (!find("driver", value)) return NOT_SUPPORTED;
    snprintf(version, length, "%s", value);
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)number("devices", 0);
    return (int)number("fail.nvmlDeviceGetCount_v2", OK);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    *device = (device_t)(uintptr_t)(index + 1);
    return (int)told(*device, "fail.nvmlDeviceGetHandleByIndex_v2", OK);
}

int nvmlDeviceGetUUID(device_t device, char *uuid, unsigned length) { OF(device); return text(device, "uuid", uuid, length); }
int nvmlDeviceGetName(device_t device, char *name, unsigned length) { OF(device); return text(device, "name", name, length); }

static void pci_fill(u64 bus, pci_t *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = (unsigned)bus;
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
}

int nvmlDeviceGetPciInfo_v3(device_t device, pci_t *pci) {
    OF(device);
    NEEDS(device, "bus");
    pci_fill(told(device, "bus", 0), pci);
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(device_t device, int *major, int *minor) {
    OF(device);
    NEEDS(device, "capability");
    *major = (int)told(device, "capability", 0) / 10;
    *minor = (int)told(device, "capability", 0) % 10;
    return OK;
}

int nvmlDeviceGetMemoryInfo(device_t device, memory_t *memory) {
    OF(device);
    NEEDS(device, "total");
    memory->total = told(device, "total", 0);
    memory->used = told(device, "used", 0) + told(device, "reserved", 0);
    memory->free = memory->total - memory->used;
    return OK;
}

int nvmlDeviceGetUtilizationRates(device_t device, utilization_t *rates) {
    OF(device);
    NEEDS(device, "busy");
    rates->gpu = (unsigned)told(device, "busy", 0);
    rates->memory = (unsigned)told(device, "memory_busy", 0);
    return OK;
}

int nvmlDeviceGetPowerUsage(device_t device, unsigned *milliwatts) {
    OF(device);
    NEEDS(device, "power");
    *milliwatts = (unsigned)told(device, "power", 0);
    return OK;
}

int nvmlDeviceGetEnforcedPowerLimit(device_t device, unsigned *milliwatts) {
    OF(device);
    NEEDS(device, "limit");
    *milliwatts = (unsigned)told(device, "limit", 0);
    return OK;
}

int nvmlDeviceGetTemperature(device_t device, unsigned sensor, unsigned *celsius) {
    OF(device);
    NEEDS(device, "temperature");
    *celsius = (unsigned)told(device, "temperature", 0);
    return sensor == 0 ? OK : INVALID;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(device_t device, u64 *reasons) {
    OF(device);
    NEEDS(device, "reasons");
    *reasons = told(device, "reasons", 0);
    return OK;
}

/* Programs stand as `0.compute0 PID:BYTES`; without BYTES the driver does not know them. */
static int programs(device_t device, const char *kind, unsigned *count, process_t *into) {
    char name[LINE], value[LINE];
    unsigned found = 0;
    for (;; found++) {
        snprintf(name, sizeof name, "%s%u", kind, found);
        if (text(device, name, value, sizeof value) != OK) break;
        if (into && found < *count) {
            char *colon = strchr(value, ':');
            memset(&into[found], 0, sizeof *into);
            into[found].pid = (unsigned)strtoul(value, NULL, 10);
            into[found].used = colon ? strtoull(colon + 1, NULL, 10) : ~0ULL;
        }
    }
    unsigned room = *count;
    *count = found;
    return room < found ? TOO_SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v2(device_t device, unsigned *count, process_t *into) {
    OF(device);
    return programs(device, "compute", count, into);
}

int nvmlDeviceGetTopologyCommonAncestor(device_t one, device_t other, unsigned *level) {
    char name[LINE];
    OF(one);
    snprintf(name, sizeof name, "level%u", gpu_of(other));
    NEEDS(one, name);
    *level = (unsigned)told(one, name, 0);
    return OK;
}

/* `0.link3 0x41` is a link to the GPU on bus 0x41, `0.link3 switch` one to an NVSwitch, `0.link3 down` one that is down. */
static int link_of(device_t device, unsigned link, char *value) {
    char name[LINE];
    snprintf(name, sizeof name, "link%u", link);
    return text(device, name, value, LINE) == OK ? OK : (link ? INVALID : NOT_SUPPORTED);
}

int nvmlDeviceGetNvLinkState(device_t device, unsigned link, unsigned *active) {
    char value[LINE];
    OF(device);
    int failed = link_of(device, link, value);
    *active = !failed && strcmp(value, "down") != 0;
    return failed;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(device_t device, unsigned link, unsigned *type) {
    char value[LINE];
    OF(device);
    int failed = link_of(device, link, value);
    *type = !failed && strcmp(value, "switch") == 0 ? 2 : 0;
    return failed;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(device_t device, unsigned link, pci_t *pci) {
    char value[LINE];
    OF(device);
    int failed = link_of(device, link, value);
    if (!failed) pci_fill(strtoull(value, NULL, 0), pci);
    return failed;
}

/* Faults: `xids` says how many the driver has reported since it was loaded, `xidN DEVICE:NUMBER` what they are. */
static u64 xids_read;

int nvmlEventSetCreate(void **set) { static int one; *set = &one; xids_read = 0; return (int)number("fail.nvmlEventSetCreate", OK); }
int nvmlEventSetFree(void *set) { return set ? OK : INVALID; }
int nvmlDeviceGetSupportedEventTypes(device_t device, u64 *types) { OF(device); *types = told(device, "events", 8); return OK; }
int nvmlDeviceRegisterEvents(device_t device, u64 types, void *set) { OF(device); return types == 8 && set ? OK : INVALID; }

int nvmlEventSetWait_v2(void *set, event_t *event, unsigned timeout_ms) {
    char name[LINE], value[LINE];
    int failed = (int)number("fail.nvmlEventSetWait_v2", OK);
    if (failed) return failed;
    snprintf(name, sizeof name, "xid%llu", xids_read);
    if (!set || timeout_ms || !find(name, value)) return TIMEOUT;
    xids_read++;
    memset(event, 0, sizeof *event);
    event->device = (device_t)(uintptr_t)(strtoul(value, NULL, 10) + 1);
    event->type = 8;
    event->data = strtoull(strchr(value, ':') + 1, NULL, 10);
    return OK;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(device_t device, memory_v2_t *memory) {
    OF(device);
    NEEDS(device, "total");
    if (memory->version != 0x02000028) return INVALID;
    memory->total = told(device, "total", 0);
    memory->used = told(device, "used", 0);
    memory->reserved = told(device, "reserved", 0);
    memory->free = memory->total - memory->used - memory->reserved;
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(device_t device, u64 *millijoules) {
    OF(device);
    NEEDS(device, "energy");
    *millijoules = told(device, "energy", 0);
    return OK;
}

int nvmlDeviceGetTemperatureV(device_t device, temperature_t *temperature) {
    OF(device);
    NEEDS(device, "temperature");
    temperature->temperature = (int)told(device, "temperature", 0);
    return temperature->version == 0x100000C && temperature->sensor == 0 ? OK : INVALID;
}

int nvmlDeviceGetCurrentClocksEventReasons(device_t device, u64 *reasons) {
    OF(device);
    NEEDS(device, "reasons");
    *reasons = told(device, "reasons", 0);
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t device, unsigned *count, process_t *into) {
    OF(device);
    return programs(device, "compute", count, into);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(device_t device, unsigned *count, process_t *into) {
    OF(device);
    return programs(device, "mps", count, into);
}

int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
    OF(device);
    NEEDS(device, "mig");
    *current = *pending = (unsigned)told(device, "mig", 0);
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count) { OF(device); *count = 7; return OK; }

int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *slice) {
    char value[LINE];
    OF(device);
    *slice = (device_t)((uintptr_t)device + (uintptr_t)(index + 1) * MIG_STEP);
    return text(*slice, "uuid", value, sizeof value) == OK ? OK : NOT_FOUND;
}
#endif
