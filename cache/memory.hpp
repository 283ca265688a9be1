#pragma once

#include <cstddef>
#include <cstdint>

namespace kvlane {

inline constexpr int64_t huge_page_bytes = int64_t{2} << 20;

int64_t page_bytes();

// A reservation of zeroed address space, committed page by page at first use.
class Memory {
public:
    Memory() = default;
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    ~Memory();

    // Reserves at least bytes > 0, aligned to a huge page where the system maps pages and to a cache line elsewhere;
    // false when it has none to give. Called once.
    bool reserve(int64_t bytes);

    // Asks for huge pages in [offset, offset + bytes). A hint: that the system declines is no error.
    void ask_for_huge_pages(int64_t offset, int64_t bytes) const;

    // Makes huge pages of those that hold [offset, offset + bytes), for which they were asked. A hint too.
    void collapse(int64_t offset, int64_t bytes) const;

    // Gives pages back to the system that hold some of [first, end) and, of all memory, only such in [free_first, free_end).
    // What they held is lost, and unspecified from then on.
    void release(int64_t first, int64_t end, int64_t free_first, int64_t free_end) const;

    // Writes a zero to every page that holds some of [offset, offset + bytes), which are zero: the system commits it.
    void commit(int64_t offset, int64_t bytes) const;

    std::byte *data() const { return data_; }

private:
    void *reservation_ = nullptr;
    int64_t reserved_bytes_ = 0;
    std::byte *data_ = nullptr;
};

}  // namespace kvlane
